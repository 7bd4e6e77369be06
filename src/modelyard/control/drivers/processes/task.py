"""One task: run once, within its deadline, its report kept until it is forgotten."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.control.drivers.processes import reports
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.log import Log, said
from modelyard.control.drivers.processes.process import Order, Process, ending, start
from modelyard.control.drivers.processes.site import Site
from modelyard.control.drivers.variables import CannotStart
from modelyard.control.ir.observed import ObservedTask
from modelyard.control.ir.task import Task
from modelyard.wire.report import Report, failure

logger = logging.getLogger(__name__)


class TaskRun:
    """Runs in a task of its own, `run`. changed: called when it ended. turns: bounds how many run at once."""

    def __init__(self, task: Task, site: Site, turns: asyncio.Semaphore, changed: Callable[["TaskRun"], None]) -> None:
        self.process: Process | None = None
        self._task = task
        self._site = site
        self._turns = turns
        self._changed = changed
        self._attention = Attention()
        self._log = Log(site.folders.log(task.name))
        self.forgotten = False
        self._cause = ""
        self._finished_at: float | None = None
        self._report: Report | None = None
        self._message = ""

    @property
    def task(self) -> Task:
        return self._task

    @property
    def finished(self) -> bool:
        return self._finished_at is not None

    @property
    def memory_limit(self) -> int:
        """Bytes; 0: none."""
        return self._task.resources.memory_limit_bytes

    def observed(self) -> ObservedTask:
        """What is known now."""
        return ObservedTask(
            name=self._task.name,
            owner=self._task.owner,
            attempt=self._task.attempt,
            finished_at=self._finished_at,
            report=self._report,
            message=self._message,
        )

    def forget(self) -> None:
        """End it if it still runs."""
        self.forgotten = True
        if self.finished:
            self._changed(self)
        self._attention.wake()

    def end(self, _reason: Reason, message: str) -> None:
        """End it as failed."""
        self._cause = self._cause or message
        self._attention.wake()

    def used(self, byte_seconds: float) -> None:
        """Not counted: tasks are short."""

    async def run(self) -> None:
        """Until it ended. A defect becomes its message."""
        try:
            async with self._turns:
                if not self.forgotten:
                    await self._live()
        except CannotStart as refusal:
            self._report = failure(refusal.reason, refusal.message, retry=True)
        except Exception as error:
            logger.exception("task %s", self._task.name)
            self._message = f"a defect of Modelyard: {error!r}; the server's log has the details"
        finally:
            self._site.ledger.release(self._task.name)
            self._site.folders.remove(self._task.name)
            self._finished_at = self._site.clock.now()
            self._changed(self)

    async def _live(self) -> None:
        task = self._task
        refused = self._site.ledger.admit(task.name, task.resources)
        if refused:
            raise CannotStart(Reason.UNSCHEDULABLE, refused)
        order = Order(
            name=task.name,
            namespace=task.owner.namespace,
            program=self._site.programs.prepare,
            work=task.work,
            variables=task.variables,
            socket=False,
        )
        process = start(self._site, order, self._log, self._attention.wake)
        self.process = process
        try:
            await self._attend(process)
            status = await process.finish()
            self._conclude(process, status)
        finally:
            process.abandon()
            self.process = None

    async def _attend(self, process: Process) -> None:
        def over() -> bool:
            return bool(process.has_ended or self.forgotten or self._cause)

        await self._attention.until(over, self._task.deadline_seconds)
        if not over():
            self._cause = f"took longer than {self._task.deadline_seconds:g} s and was ended"

    def _conclude(self, process: Process, status: int) -> None:
        """The report counts, whatever the exit status: it is written at once and last."""
        if self._cause:
            self._message = self._cause + said(self._log, self._task.owner)
            return
        try:
            self._report = reports.read(Path(process.place.report))
        except UserError as error:
            self._message = f"{error.message}; it {ending(status)}{said(self._log, self._task.owner)}"
            return
        if self._report is None:
            self._message = f"it {ending(status)} without a report{said(self._log, self._task.owner)}"
