"""Members of a task that are admitted, started, ended and started again together: all of a gang, or just one."""

import asyncio
import logging
import socket
from collections.abc import Callable

from modelyard.base.conditions import Reason
from modelyard.control.drivers.ledger import Ask
from modelyard.control.drivers.machine import share
from modelyard.control.drivers.outcome import Done, Failed, Final, Left, Outcome, combine, judge
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.member import Member
from modelyard.control.drivers.processes.site import Site
from modelyard.control.drivers.rules import Backoff
from modelyard.control.drivers.variables import CannotStart
from modelyard.control.ir.task import Task
from modelyard.wire.report import Report

logger = logging.getLogger(__name__)


class Party:
    """Runs in a task of its own, `run`, until its work is done or it is asked to leave.

    name: of its share in the ledger. concluded: called with the report that ends the whole task: all its members are
    done (the first one's report), or one told a final failure. failed: called once for each attempt that fails.
    """

    def __init__(
        self,
        name: str,
        members: tuple[Member, ...],
        task: Task,
        site: Site,
        *,
        concluded: Callable[[Report], None],
        failed: Callable[[], None],
    ) -> None:
        self.members = members
        self.leaving = False
        self.over = False
        self._name = name
        self._task = task
        self._site = site
        self._concluded = concluded
        self._failed = failed
        self._attention = Attention()
        self._backoff = Backoff()
        self._refusals = Backoff()
        self._attempt = 0
        self._waits = False
        """For something that may come: room, or a Secret."""
        self._came = False
        self._evicted_for = ""
        self._break = False
        """This attempt is over for all."""
        self._counted = False

    def leave(self, grace_seconds: float) -> None:
        """End for good, as asked."""
        if not self.leaving:
            self.leaving = True
            self._site.ledger.leaving(self._name)
        self._end_all(grace_seconds)
        self._attention.wake()

    def look_again(self) -> None:
        """Something came that it may be waiting for. A back-off after a failure is not cut short."""
        if self._waits:
            self._came = True
            self._attention.wake()

    async def run(self) -> None:
        """Until it left. A defect is told like any other trouble and does not end the driver."""
        clock = self._site.clock
        try:
            while not self.leaving:
                self._came = self._waits = self._counted = False
                self._make_room()
                resume = clock.monotonic() + await self._once()
                while (left := resume - clock.monotonic()) > 0 and not self._due:
                    await self._attention.until(lambda: self._due or bool(self._evicted_for), left)
                    self._make_room()
        finally:
            self.over = True
            self._site.ledger.release(self._name)

    @property
    def _due(self) -> bool:
        """There is no more waiting."""
        return self.leaving or self._came

    async def _once(self) -> float:
        """One attempt, or a refused start; how many seconds to wait before the next one."""
        try:
            outcome = await self._live()
        except CannotStart as refusal:
            for member in self.members:
                member.refused(refusal)
            self._waits = True
            self._make_room()
            return self._refusals.pause(None)
        except Exception as error:
            logger.exception("task %s", self._task.name)
            told = f"a defect of Modelyard: {error!r}; the server's log has the details"
            outcome = Failed(Reason.INTERNAL_ERROR, told)
            self._fails(self.members[0], outcome)
        self._refusals = Backoff()
        match outcome:
            case Done(report) | Final(report):
                self.leaving = True
                self._concluded(report)
            case Failed(seconds=seconds, progress=progress):
                return self._backoff.pause_after(seconds, progress)
            case Left() if self._evicted_for and not self.leaving:
                self._waits = True
                self._make_room()
                return self._refusals.pause(None)
        return 0.0

    async def _live(self) -> Outcome:
        """All members once. Raises CannotStart."""
        refused = self._site.ledger.admit(
            Ask(
                name=self._name,
                share=share(self._task.resources, len(self.members)),
                priority=self._task.priority,
                evict=self._evict,
            )
        )
        if refused:
            raise CannotStart(Reason.UNSCHEDULABLE, refused)
        self._attempt += 1
        self._break = False
        master = f"127.0.0.1:{_free_port()}" if self._task.gang else ""
        async with asyncio.TaskGroup() as group:
            lives = [group.create_task(self._one(member, master)) for member in self.members]
        told = [life.result() for life in lives]
        outcome = combine([Left() if isinstance(each, CannotStart) else each for each in told])
        if isinstance(outcome, Done):
            return outcome
        for member in self.members:
            member.done = False
        refusals = [each for each in told if isinstance(each, CannotStart)]
        if refusals and not isinstance(outcome, Final):
            raise refusals[0]
        return outcome

    async def _one(self, member: Member, master: str) -> Outcome | CannotStart:
        if self._break:
            return Left()
        outcome: Outcome | CannotStart
        try:
            outcome = judge(await member.live(attempt=self._attempt if self._task.gang else 1, master=master))
        except CannotStart as refusal:
            outcome = refusal
        if isinstance(outcome, Failed):
            self._fails(member, outcome)
        if isinstance(outcome, Done):
            member.done = True
        else:
            self._end_all(self._task.grace_seconds)
        return outcome

    def _fails(self, member: Member, outcome: Failed) -> None:
        """An attempt fails once, however many of its members do."""
        if not self._counted:
            self._counted = True
            self._failed()
        member.troubled(outcome.reason, outcome.message)

    def _end_all(self, grace_seconds: float) -> None:
        self._break = True
        for member in self.members:
            member.leave(grace_seconds)

    def _evict(self, whom: str) -> None:
        """Somebody of higher priority needs the room."""
        self._evicted_for = whom
        self._end_all(self._task.grace_seconds)
        self._attention.wake()

    def _make_room(self) -> None:
        """Nothing runs: give up the share, if somebody needs it."""
        if self._evicted_for:
            told = f"made room for {self._evicted_for}; goes on when there is room again"
            for member in self.members:
                member.troubled(Reason.PREEMPTED, told, waits=True)
            self._evicted_for = ""
            self._site.ledger.release(self._name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
