"""`python -m modelyard.runtime.progress`: tell of a job whose program runs in a container of its own.

At `Place.report_listen` it says how far the program says it is, and then what the process says that commits, see
`wire.place.PROGRAM_OUTPUT`.

Exit status: 143 at SIGTERM, 2 when it was not started by Modelyard, 1 when it cannot listen.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from modelyard.base.errors import UserError
from modelyard.runtime.jobs import told
from modelyard.runtime.report import endpoint
from modelyard.wire import report as reports
from modelyard.wire.place import PROGRAM_PROGRESS, Place

UNSTARTED, FAILED = 2, 1
_log = logging.getLogger("modelyard.progress")


def main() -> int:
    """Returns the exit status; SIGTERM ends it before that."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        place = Place.from_environment(os.environ)
    except UserError as error:
        _log.error("%s", error)
        return UNSTARTED
    try:
        asyncio.run(_answer(place))
    except UserError as error:
        _log.error("%s", error)
    return FAILED


async def _answer(place: Place) -> None:
    async with endpoint.offered(place.report_listen, lambda: latest(place)):
        await asyncio.Event().wait()


def latest(place: Place) -> bytes:
    """The report at this moment, encoded."""
    committing = told.content(Path(place.report), reports.MAX_BYTES)
    if committing is not None:
        return committing
    found = told.read(Path(place.program) / PROGRAM_PROGRESS)
    return reports.encode(reports.Report(job=found.report()))
