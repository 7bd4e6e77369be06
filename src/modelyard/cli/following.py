"""`modelyard apply --watch`: what is applied is waited for, and jobs are shown while they work."""

import math
import sys

from modelyard.cli import job_view, waiting
from modelyard.cli.session import Session
from modelyard.sdk.objects import Object


async def follow(session: Session, applied: list[Object], seconds: float) -> None:
    """Until each is Ready, or Complete. Jobs may take any time, others `seconds`. Raises one error for all failures."""
    with job_view.of(sys.stdout) as view:
        patience = waiting.Patience(
            seconds=seconds,
            job_seconds=math.inf,
            result=view.say,
            summary=view.at_last,
            aside=view.aside,
            follower=view.follower,
        )
        await waiting.wait_all_ready(session, applied, patience)
