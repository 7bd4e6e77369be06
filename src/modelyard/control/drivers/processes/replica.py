"""One replica: started where there is room, started again with back-off when it ends, drained when it leaves."""

import logging
import signal
from collections.abc import Callable
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.control.drivers import rules
from modelyard.control.drivers.ledger import SERVICE_PRIORITY, Ask
from modelyard.control.drivers.machine import share
from modelyard.control.drivers.outcome import known
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.log import Log, said
from modelyard.control.drivers.processes.process import Order, Process, ending, start
from modelyard.control.drivers.processes.reports import ReportWatch
from modelyard.control.drivers.processes.site import Site
from modelyard.control.drivers.rules import Backoff
from modelyard.control.drivers.variables import CannotStart
from modelyard.control.ir import unit_secret
from modelyard.control.ir.observed import ObservedReplica, ReplicaState, Trouble, Usage
from modelyard.control.ir.unit import Unit
from modelyard.wire.report import Failure, Report
from modelyard.wire.work import WorkSpec

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 0.3
"""Between DRAINING and SIGTERM: the gateway needs a moment to send requests elsewhere."""
_POLL_SECONDS = 0.05
_WAITS = frozenset({Reason.UNSCHEDULABLE, Reason.SECRET_NOT_FOUND})
_REPORTED_SECONDS = 2.0
"""What a process that reported a failure has left to end by itself, with a proper exit status."""


class Replica:
    """Runs in a task of its own, `run`. changed: called after every change of what `observed` tells but the report.

    work: what a process that starts now must do.
    """

    def __init__(
        self, name: str, unit: Unit, site: Site, *, changed: Callable[[], None], work: Callable[[], WorkSpec]
    ) -> None:
        self.name = name
        self.process: Process | None = None
        self._unit = unit
        self._site = site
        self._changed = changed
        self._work = work
        self._follows = unit.work.stream is not None
        self._attention = Attention()
        self._backoff = Backoff()
        self._refusals = Backoff()
        self._log = Log(site.folders.log(name))
        self._state = ReplicaState.PENDING
        self._leaving = False
        self._hurry = False
        self._came = False
        self._cause: tuple[str, str] | None = None
        self._reports: ReportWatch | None = None
        self._report: Report | None = None
        self._news = False
        self._trouble: Trouble | None = None
        self._started_at = 0.0
        self._restarts = 0
        self._ended_cpu_seconds = 0.0
        self._byte_seconds = 0.0

    @property
    def leaving(self) -> bool:
        return self._leaving

    @property
    def memory_limit(self) -> int:
        """Bytes; 0: none."""
        return self._unit.resources.memory_limit_bytes

    @property
    def usage(self) -> Usage:
        """Of all its processes so far."""
        running = self.process.cpu_seconds if self.process else 0.0
        return Usage(cpu_seconds=self._ended_cpu_seconds + running, memory_byte_seconds=self._byte_seconds)

    def used(self, byte_seconds: float) -> None:
        """Add memory that it used."""
        self._byte_seconds += byte_seconds

    def observed(self) -> ObservedReplica:
        """What is known now."""
        listens = self._state is ReplicaState.READY and not self._follows  # to the gateway's requests
        return ObservedReplica(
            name=self.name,
            state=self._state,
            address=f"unix:{self._site.folders.socket(self.name)}" if listens else "",
            pid=self.process.pid if self.process else 0,
            started_at=self._started_at,
            restarts=self._restarts,
            report=self._shown(self._report),
            trouble=self._trouble,
        )

    def leave(self, *, hurry: bool = False) -> None:
        """Drain and end. hurry: nobody sends requests any more, so there is nothing to wait for before SIGTERM."""
        self._hurry = self._hurry or hurry
        if not self._leaving:
            self._leaving = True
            self._site.ledger.leaving(self.name)
            self._become(ReplicaState.DRAINING)
        self._attention.wake()

    def look_again(self) -> None:
        """Something came that it may be waiting for: room, or a Secret. A back-off after an end is not cut short."""
        if self._trouble is not None and self._trouble.reason in _WAITS and self.process is None:
            self._came = True
            self._attention.wake()

    def end(self, reason: Reason, message: str) -> None:
        """End it as troubled; it is started again."""
        if self._cause is None and self.process is not None:
            self._cause = (reason, message)
            self._attention.wake()

    def look(self) -> bool:
        """Look at its report; whether there is a new one since the last look."""
        self._read()
        news, self._news = self._news, False
        return news

    async def run(self) -> None:
        """Until it left. A defect is told like any other trouble and does not end the driver."""
        try:
            while not self._leaving:
                self._came = False
                pause = await self._once()
                self._become(ReplicaState.PENDING)
                await self._attention.until(lambda: self._leaving or self._came, pause)
        finally:
            self._site.ledger.release(self.name)

    async def _once(self) -> float:
        """One life, or a refused start; how many seconds to wait before the next one."""
        try:
            pause = self._backoff.pause(await self._live())
        except CannotStart as refusal:
            self._refused(refusal)
            return self._refusals.pause(None)
        except Exception as error:
            logger.exception("replica %s", self.name)
            self._troubled(Reason.INTERNAL_ERROR, f"a defect of Modelyard: {error!r}; the server's log has the details")
            pause = self._backoff.pause(None)
        finally:
            self._site.folders.remove(self.name)
        self._refusals = Backoff()
        return pause

    async def _live(self) -> float | None:
        """How many seconds it was ready, or None. Raises CannotStart."""
        refused = self._site.ledger.admit(
            Ask(name=self.name, share=share(self._unit.resources), priority=SERVICE_PRIORITY)
        )
        if refused:
            raise CannotStart(Reason.UNSCHEDULABLE, refused)
        order = Order(
            name=self.name,
            namespace=self._unit.owner.namespace,
            program=self._site.programs.of(self._unit.work),
            work=self._work(),
            variables=self._unit.variables,
            credentials=self._unit.credentials,
            socket=True,
            gateway_digest="" if self._follows else unit_secret.digest(self._site.unit_secret(self._unit.name)),
        )
        self._cause = None
        process = start(self._site, order, self._log, self._attention.wake)
        self.process, self._reports = process, ReportWatch(Path(process.place.report))
        self._started_at = self._site.clock.now()
        try:
            self._become(ReplicaState.STARTING)
            ready_seconds = await self._attend(process)
            status = await process.finish()
        finally:
            process.abandon()
            self.process = self._reports = self._report = None
            self._ended_cpu_seconds += process.cpu_seconds
        if not self._leaving:
            self._restarts += 1
            self._troubled(*self._explain(process, status))
        return ready_seconds

    async def _attend(self, process: Process) -> float | None:
        """Until it must be finished off."""
        clock = self._site.clock
        began = clock.monotonic()
        if not await self._becomes_ready(process, began + self._unit.startup_timeout_seconds):
            return None
        ready_at = clock.monotonic()
        self._trouble = None
        self._become(ReplicaState.READY)
        await self._attention.until(lambda: bool(process.has_ended or self._leaving or self._cause or self._failure))
        ready_seconds = clock.monotonic() - ready_at
        self._become(ReplicaState.PENDING)
        if self._failure and not self._leaving:
            await self._reported(process, self._failure)
        elif self._leaving and not process.has_ended:
            await self._drain(process)
        return ready_seconds

    async def _becomes_ready(self, process: Process, deadline: float) -> bool:
        while not self._leaving and self._cause is None:
            over = process.has_ended
            self._read()
            if self._failure:
                await self._reported(process, self._failure)
                return False
            if over or self._cause is not None:
                return False
            if self._is_ready:
                return True
            if self._site.clock.monotonic() >= deadline and not rules.says_why(self._report):
                self.end(Reason.STARTUP_TIMEOUT, self._too_slow())
                return False
            await self._attention.until(lambda: process.has_ended or self._leaving, _POLL_SECONDS)
        return False

    def _read(self) -> None:
        """Take over its report, if it has a new one. One that cannot be read ends it as troubled."""
        if self._reports is None:
            return
        try:
            report = self._reports.fresh()
        except UserError as error:
            self.end(Reason.CRASHED, f"was ended, since {error}")
            return
        if report is not None and report != self._report:
            self._news = self._news or self._shown(report) != self._shown(self._report)
            self._report = report
            self._attention.wake()

    def _shown(self, report: Report | None) -> Report | None:
        """What of a report is for others: of a server that it is ready is told by its state."""
        tells = report and (self._follows or rules.compares(report))
        return report if tells else None

    @property
    def _failure(self) -> Failure | None:
        return self._report.failure if self._report else None

    @property
    def _is_ready(self) -> bool:
        told = self._report and (self._report.stream if self._follows else self._report.serve)
        return bool(told and told.ready)

    async def _reported(self, process: Process, failure: Failure) -> None:
        self.end(known(failure.reason, Reason.LOAD_FAILED), failure.message)
        await self._attention.until(lambda: process.has_ended or self._leaving, _REPORTED_SECONDS)

    async def _drain(self, process: Process) -> None:
        """SIGTERM, and until it ended or its time is over. What follows kills what is left."""
        if not self._follows:
            await self._attention.until(lambda: process.has_ended or self._hurry, LEAVE_SECONDS)
        process.signal(signal.SIGTERM)
        await self._attention.until(lambda: process.has_ended, self._unit.drain_seconds)

    def _explain(self, process: Process, status: int) -> tuple[str, str]:
        if self._cause is not None:
            return self._cause
        try:
            report = ReportWatch(Path(process.place.report)).fresh()
        except UserError:
            report = None  # its exit tells more than what it left
        if report and report.failure:
            return known(report.failure.reason, Reason.LOAD_FAILED), report.failure.message
        return Reason.CRASHED, ending(status) + said(self._log, self._unit.owner)

    def _too_slow(self) -> str:
        return (
            f"was not ready within {self._unit.startup_timeout_seconds:g} s and was ended (a Runtime's "
            f"spec.probe.startupTimeout gives more time){said(self._log, self._unit.owner)}"
        )

    def _become(self, state: ReplicaState) -> None:
        if self._leaving:
            state = ReplicaState.DRAINING
        if state is not self._state:
            self._state = state
            self._changed()

    def _troubled(self, reason: str, message: str) -> None:
        self._trouble = Trouble(reason=reason, message=message, since=self._site.clock.now())
        self._changed()

    def _refused(self, refusal: CannotStart) -> None:
        """Being refused again for the same reason is no news."""
        before = self._trouble
        if before is None or (before.reason, before.message) != (refusal.reason, refusal.message):
            self._troubled(refusal.reason, refusal.message)
