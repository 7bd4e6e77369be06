"""One member of a task: a process at a time, its latest report, what it has used."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.control.drivers.outcome import End
from modelyard.control.drivers.processes import reports
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.log import Log, said
from modelyard.control.drivers.processes.process import Order, Process, ending, start
from modelyard.control.drivers.processes.reports import ReportWatch
from modelyard.control.drivers.processes.site import Site
from modelyard.control.drivers.variables import CannotStart
from modelyard.control.ir.observed import MemberState, ObservedMember, Trouble, Usage
from modelyard.control.ir.task import Task
from modelyard.wire.report import Report

logger = logging.getLogger(__name__)

_REPORTED_SECONDS = 5.0
"""What a process that reported a failure has left to end by itself."""


class Member:
    """Lives any number of times, one after the other. changed: called after changes of what `observed` tells."""

    def __init__(self, name: str, index: int, task: Task, site: Site, changed: Callable[[], None]) -> None:
        self.name = name
        self.process: Process | None = None
        self.done = False
        """Ended well: set by whoever judges its end."""
        self._index = index
        self._task = task
        self._site = site
        self._changed = changed
        self._attention = Attention()
        self._log = Log(site.folders.log(name))
        self._watch: ReportWatch | None = None
        self._report: Report | None = None
        self._trouble: Trouble | None = None
        self._waits = False
        self._kill_at: float | None = None
        self._cause: tuple[str, str] | None = None
        self._reported = False
        self._ended_cpu_seconds = 0.0
        self._byte_seconds = 0.0

    @property
    def memory_limit(self) -> int:
        """Bytes; 0: none."""
        return self._task.resources.memory_limit_bytes

    @property
    def usage(self) -> Usage:
        """Of all its processes so far."""
        running = self.process.cpu_seconds if self.process else 0.0
        return Usage(cpu_seconds=self._ended_cpu_seconds + running, memory_byte_seconds=self._byte_seconds)

    def used(self, byte_seconds: float) -> None:
        """Add memory that it used."""
        self._byte_seconds += byte_seconds

    def observed(self) -> ObservedMember:
        """What is known now."""
        state = MemberState.PENDING
        if self.done:
            state = MemberState.DONE
        elif self.process is not None:
            state = MemberState.RUNNING if self._kill_at is None else MemberState.ENDING
        return ObservedMember(
            name=self.name,
            state=state,
            pid=self.process.pid if self.process else 0,
            report=self._report,
            trouble=self._trouble,
        )

    def leave(self, grace_seconds: float) -> None:
        """Ask its process to end with SIGTERM, and kill it when the time is over; a shorter time than before counts."""
        if self.process is not None:
            kill_at = self._site.clock.monotonic() + grace_seconds
            self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
            self._attention.wake()

    def end(self, reason: Reason, message: str) -> None:
        """Kill its process as failed."""
        if self._cause is None and self.process is not None:
            self._cause = (reason, message)
            self._attention.wake()

    def look(self) -> bool:
        """Look at its report; whether there is a new one. One that cannot be read ends the process as failed."""
        if self._watch is None:
            return False
        try:
            report = self._watch.fresh()
        except UserError as error:
            self.end(Reason.CRASHED, f"was ended, since {error}")
            return False
        if report is None or report == self._report:
            return False
        self._report = report
        if report.failure is not None:
            self._reported = True
            self._attention.wake()
        return True

    def troubled(self, reason: str, message: str, *, waits: bool = False) -> None:
        """Keep what went wrong; waits: until it is started, since it waits for something."""
        self._waits = waits
        self._trouble = Trouble(reason=reason, message=message, since=self._site.clock.now())
        self._changed()

    def refused(self, refusal: CannotStart) -> None:
        """It cannot start for now. The same again is no news; who made room for others still waits for that reason."""
        before = self._trouble
        if before is not None:
            same = (before.reason, before.message) == (refusal.reason, refusal.message)
            if same or (before.reason == Reason.PREEMPTED and refusal.reason is Reason.UNSCHEDULABLE):
                return
        self.troubled(refusal.reason, refusal.message, waits=True)

    async def live(self, *, attempt: int = 1, master: str = "", deadline_seconds: float = 0.0) -> End:
        """Run a process to its end. deadline_seconds: kill it after so many, 0: never. Raises CannotStart."""
        task, clock = self._task, self._site.clock
        order = Order(
            name=self.name,
            namespace=task.owner.namespace,
            program=self._site.programs.of(task.work),
            work=task.work,
            variables=task.variables,
            credentials=task.credentials,
            index=self._index,
            attempt=attempt,
            master=master,
        )
        self.done, self._cause, self._reported, self._kill_at = False, None, False, None
        if self._report is not None and self._report.failure is not None:
            self._report = None
        began = clock.monotonic()
        try:
            process = start(self._site, order, self._log, self._attention.wake)
        except CannotStart:
            self._site.folders.remove(self.name)
            raise
        if self._waits:
            self._trouble, self._waits = None, False
        self.process, self._watch = process, ReportWatch(Path(process.place.report))
        self._changed()
        try:
            await self._attend(process, deadline_seconds)
            asked = self._kill_at is not None
            status = await process.finish()
            return self._ended(process, status, asked=asked, seconds=clock.monotonic() - began)
        finally:
            process.abandon()
            self.process = self._watch = self._kill_at = None
            self._ended_cpu_seconds += process.cpu_seconds
            self._site.folders.remove(self.name)

    async def _attend(self, process: Process, deadline_seconds: float) -> None:
        """Until it must be finished off."""

        def over() -> bool:
            return process.has_ended or self._cause is not None or self._kill_at is not None

        await self._attention.until(lambda: over() or self._reported, deadline_seconds or None)
        if self._reported:
            await self._attention.until(over, _REPORTED_SECONDS)
        elif not over():
            self._cause = (Reason.DEADLINE_EXCEEDED, f"took longer than {deadline_seconds:g} s and was ended")
        if self._kill_at is not None and self._cause is None:
            await self._drain(process)

    async def _drain(self, process: Process) -> None:
        """SIGTERM, and until it ended or its time is over. What follows kills what is left."""
        clock, until = self._site.clock, self._kill_at
        if until is not None and until > clock.monotonic():
            process.signal(signal.SIGTERM)

        def news() -> bool:
            return process.has_ended or self._cause is not None or self._kill_at != until

        while until is not None and (left := until - clock.monotonic()) > 0:
            await self._attention.until(news, left)
            if process.has_ended or self._cause is not None:
                return
            until = self._kill_at

    def _ended(self, process: Process, status: int, *, asked: bool, seconds: float) -> End:
        """It wrote its report at once and last."""
        cause, report = self._cause, None
        try:
            report = reports.read(Path(process.place.report))
        except UserError as error:
            cause = cause or (Reason.CRASHED, f"{error.message}; it {ending(status)}")
        self._report = report or self._report
        return End(
            status=status,
            report=report,
            asked=asked,
            cause=cause,
            how=ending(status),
            said=said(self._log, self._task.owner),
            seconds=seconds,
        )
