"""A task from when it is taken over until it is forgotten; and one that runs once, within its deadline."""

import asyncio
import logging
from collections.abc import Callable

from modelyard.base.conditions import Reason
from modelyard.control.drivers import rules
from modelyard.control.drivers.ledger import Ask
from modelyard.control.drivers.machine import share
from modelyard.control.drivers.outcome import End
from modelyard.control.drivers.processes.member import Member
from modelyard.control.drivers.processes.site import Site
from modelyard.control.drivers.variables import CannotStart
from modelyard.control.ir.observed import ObservedTask, Usage
from modelyard.control.ir.task import Task
from modelyard.wire.report import Report, failure

logger = logging.getLogger(__name__)

_HURRY_SECONDS = 3.0
"""The most grace that members have when the whole driver ends."""


class TaskRun:
    """Runs in a task of its own, `run`. changed: called after changes of what `observed` tells."""

    def __init__(self, task: Task, site: Site, changed: Callable[["TaskRun"], None]) -> None:
        self.task = task
        self.forgotten = False
        self._site = site
        self._told = changed
        self._started_at = site.clock.now()
        self._finished_at: float | None = None
        self._report: Report | None = None
        self._message = ""
        self._failures = 0
        self._ended_usage = Usage()

    @property
    def finished(self) -> bool:
        return self._finished_at is not None

    @property
    def parallelism(self) -> int:
        """How many members are asked for."""
        return self.task.parallelism

    @property
    def members(self) -> tuple[Member, ...]:
        """What there is of it, by index."""
        return ()

    @property
    def logs(self) -> tuple[str, ...]:
        """Names of the logs of all members so far, those that ended included."""
        return (self.task.name,)

    def observed(self) -> ObservedTask:
        """What is known now."""
        members = self.members
        return ObservedTask(
            name=self.task.name,
            owner=self.task.owner,
            attempt=self.task.attempt,
            parallelism=self.parallelism,
            started_at=self._started_at,
            members=() if self.finished else tuple(member.observed() for member in members),
            failures=self._failures,
            usage=rules.total((self._ended_usage, *(member.usage for member in members))),
            finished_at=self._finished_at,
            report=self._report if self.finished else None,
            message=self._message if self.finished else "",
        )

    def forget(self, *, hurry: bool = False) -> None:
        """End it if it still runs. hurry: the driver ends, which must not take long."""
        self.forgotten = True
        if self.finished:
            self._changed()
        else:
            grace = self.task.grace_seconds
            self._leave(min(grace, _HURRY_SECONDS) if hurry else grace)

    def adjust(self, parallelism: int) -> None:
        """Change how many members run at once."""
        raise NotImplementedError  # refused before, by rules.check_adjust

    def look_again(self) -> None:
        """Something came that members may be waiting for."""

    async def run(self) -> None:
        """Until it ended. A defect becomes its message."""
        try:
            await self._work()
        except CannotStart as refusal:
            self._report = failure(refusal.reason, refusal.message, retry=True)
        except Exception as error:
            logger.exception("task %s", self.task.name)
            self._report = None
            self._message = f"a defect of Modelyard: {error!r}; the server's log has the details"
        finally:
            self._site.ledger.release(self.task.name)
            self._finished_at = self._site.clock.now()
            self._changed()

    async def _work(self) -> None:
        """Until nothing of it runs any more; leaves its report or message."""
        raise NotImplementedError

    def _leave(self, grace_seconds: float) -> None:
        """Ask all members to end."""
        raise NotImplementedError

    def _changed(self) -> None:
        self._told(self)


class OnceRun(TaskRun):
    """One process, whose end is the task's. turns: bounds how many run at once."""

    def __init__(self, task: Task, site: Site, turns: asyncio.Semaphore, changed: Callable[[TaskRun], None]) -> None:
        super().__init__(task, site, changed)
        self._turns = turns
        self._member = Member(task.name, 0, task, site, self._changed)

    @property
    def members(self) -> tuple[Member, ...]:
        return (self._member,)

    async def _work(self) -> None:
        task = self.task
        async with self._turns:
            if self.forgotten:
                return
            ask = Ask(name=task.name, share=share(task.resources), priority=task.priority, waits=False)
            refused = self._site.ledger.admit(ask)
            if refused:
                raise CannotStart(Reason.UNSCHEDULABLE, refused)
            self._conclude(await self._member.live(deadline_seconds=task.deadline_seconds))

    def _leave(self, grace_seconds: float) -> None:
        self._member.leave(grace_seconds)

    def _conclude(self, end: End) -> None:
        """The report counts, whatever the exit status."""
        if end.cause is not None:
            self._message = end.cause[1] + end.said
        elif end.report is not None:
            self._report = end.report
        else:
            self._message = f"it {end.how} without a report{end.said}"
