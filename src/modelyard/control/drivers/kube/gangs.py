"""Members of a gang come and go together: a Job of theirs in which one has failed is removed, and made anew.

It is made anew by whoever wants the task, who sees it gone; the number of the attempt outlives it, with the Service by
which members find each other.
"""

import asyncio
import logging
from typing import Any

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError
from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.index import Index
from modelyard.control.drivers.kube.trouble import seconds
from modelyard.control.drivers.kube.writes import Writes
from modelyard.control.ir import names
from modelyard.control.render import kube_workload

log = logging.getLogger(__name__)
Object = dict[str, Any]
_LOOK_SECONDS = 1.0
_LONGEST_PAUSE = 60.0


class Gangs:
    """Run `run`."""

    def __init__(self, writes: Writes, index: Index, clock: Clock) -> None:
        self._writes = writes
        self._index = index
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due = [job for job, at in self._failed() if self._clock.now() >= at]
            async with asyncio.TaskGroup() as group:
                for job in due:
                    group.create_task(self._replace(job))
            await self._clock.sleep(_LOOK_SECONDS)

    def _failed(self) -> list[tuple[Object, float]]:
        """Jobs of gangs that are to be made anew, and when."""
        found = []
        for what, job, pods in self._index.tasks():
            end = observe.end_of(job)
            if what.gang and end and not observe.is_going(job) and observe.is_to_be_replaced(job, pods):
                pause = 0.0 if observe.was_disrupted(job) else pause_after(attempt_of(job))
                found.append((job, seconds(end.get("lastTransitionTime")) + pause))
        return found

    async def _replace(self, job: Object) -> None:
        """First the number, then the removal: whoever does only one of them is followed by one who does the rest."""
        metadata = job["metadata"]
        attempt = attempt_of(job) + 1
        try:
            service = await self._writes.read("Service", metadata["namespace"], metadata["name"])
            if attempt_of(service) < attempt:
                await self._writes.note("Service", service, kube_workload.next_attempt(service, attempt))
            await self._writes.delete("Job", job)
        except ModelyardError as error:
            log.info("the gang of Job %s/%s: %s", metadata["namespace"], metadata["name"], error)


def attempt_of(body: Object) -> int:
    """Of a Job or Service of a gang; 1 where nothing is said."""
    text = observe.annotation(body, names.ANNOTATION_ATTEMPT)
    return int(text) if text.isdecimal() else 1


def pause_after(attempt: int) -> float:
    """Seconds between a failure and the next attempt: 1, 2, 4 ... 60."""
    return float(min(2 ** min(attempt - 1, 10), _LONGEST_PAUSE))
