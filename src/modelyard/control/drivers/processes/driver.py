"""The Driver that runs units and tasks as processes of this machine."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from modelyard.base.clock import Clock, SystemClock
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.drivers import rules
from modelyard.control.drivers.hints import Hints
from modelyard.control.drivers.ledger import Ledger
from modelyard.control.drivers.machine import Machine, this_machine
from modelyard.control.drivers.processes import log as logs
from modelyard.control.drivers.processes import strays
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.crew import CrewRun
from modelyard.control.drivers.processes.site import LONGEST_RUN_FOLDER, Folders, Programs, Site
from modelyard.control.drivers.processes.task import OnceRun, TaskRun
from modelyard.control.drivers.processes.unit import UnitRun
from modelyard.control.drivers.processes.watchdog import Subject, watch
from modelyard.control.drivers.variables import SecretFiles, Secrets
from modelyard.control.ir import unit_secret as unit_secrets
from modelyard.control.ir.actions import Action, Adjust, Forget, Resize, Run, Start, Stop
from modelyard.control.ir.observed import Capabilities, Observed
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit_secret import UnitSecret
from modelyard.control.ir.values import Key

logger = logging.getLogger(__name__)

_ENDED_LOGS = 100
"""Logs kept of replicas and tasks that are gone."""


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


class ProcessDriver:
    """Runs while entered: `async with ProcessDriver(...) as driver`. Enter it in the main thread.

    secrets: asked with a namespace and a key each time a process starts; secret_files: with a namespace and the name of
    a Secret, for all its keys. unit_secret: what those who serve requests demand of the gateway. machine: what may be
    promised to processes; by default all memory and cores of this one.
    """

    def __init__(
        self,
        *,
        folders: Folders,
        secrets: Secrets,
        secret_files: SecretFiles = lambda *_: None,
        unit_secret: UnitSecret = unit_secrets.none,
        programs: Programs | None = None,
        machine: Machine | None = None,
        clock: Clock | None = None,
    ) -> None:
        machine = machine or this_machine()
        self._site = Site(
            programs=programs or Programs(),
            folders=folders,
            secrets=secrets,
            secret_files=secret_files,
            unit_secret=unit_secret,
            ledger=Ledger(machine, freed=self.look_again),
            clock=clock or SystemClock(),
        )
        self._hints = Hints()
        self._units: dict[str, UnitRun] = {}
        self._tasks: dict[str, TaskRun] = {}
        self._turns = asyncio.Semaphore(max(2, machine.cpu_millis // 1000))
        self._group = asyncio.TaskGroup()
        self._watchdog: asyncio.Task[None] | None = None
        self._open = False
        self._attention = Attention()

    @property
    def capabilities(self) -> Capabilities:
        """Memory limits are enforced; CPU limits set threads only."""
        return Capabilities(enforces=frozenset({"memory"}))

    async def __aenter__(self) -> Self:
        """End what an earlier driver on these folders left, before anything starts. Raises UserError."""
        folders = self._site.folders
        if len(str(folders.run).encode()) > LONGEST_RUN_FOLDER:
            raise UserError(f"{folders.run} is too long for Unix sockets: at most {LONGEST_RUN_FOLDER} bytes")
        for folder in (folders.run, folders.sockets(), folders.records(), folders.work, folders.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        left = await asyncio.to_thread(strays.end_leftovers, folders.records(), folders.work)
        if left:
            logger.warning("ended %d processes that an earlier server had left", left)
        await asyncio.to_thread(_empty, folders.sockets())
        await asyncio.to_thread(_empty, folders.work)
        logs.prune(folders.logs, keep=frozenset(), most=_ENDED_LOGS)
        await self._group.__aenter__()
        self._watchdog = self._group.create_task(watch(self._subjects, self._site.clock))
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BaseException as hurry:
            # Nobody waits any longer: cancelled supervisors kill what they have.
            await self._group.__aexit__(type(hurry), hurry, hurry.__traceback__)
            raise
        # An error of the body stays itself, not a part of a group; a cancellation may come from the group.
        cancelled = isinstance(error, asyncio.CancelledError)
        await (self._group.__aexit__(kind, error, trace) if cancelled else self._group.__aexit__(None, None, None))

    async def close(self) -> None:
        """Drain and end everything; leaves no process and no socket. Idempotent."""
        self._open = False
        if self._watchdog is not None:
            self._watchdog.cancel()
        for unit in tuple(self._units.values()):
            unit.stop(hurry=True)
        for run in tuple(self._tasks.values()):
            run.forget(hurry=True)
        await self._attention.until(lambda: not (self._units or self._tasks))

    def observe(self, owner: Key | None = None) -> Observed:
        """What runs now, from memory."""
        units = (self._units[name] for name in sorted(self._units))
        tasks = (self._tasks[name] for name in sorted(self._tasks))
        return Observed(
            units=tuple(each.observed() for each in units if owner in (None, each.unit.owner)),
            tasks=tuple(each.observed() for each in tasks if owner in (None, each.task.owner)),
        )

    def hints(self) -> AsyncIterator[Key]:
        """Owners of what changed."""
        return self._hints.stream()

    def look_again(self) -> None:
        """Something outside changed, such as a Secret: start now what waits for it."""
        for unit in self._units.values():
            unit.look_again()
        for run in self._tasks.values():
            run.look_again()

    def log_files(self, owner: Key) -> tuple[Path, ...]:
        """Logs of what an owner has running: `<logs>/<replica or member>.log`, each after its older `.log.1`."""
        folders = self._site.folders
        units = (each for each in self._units.values() if each.unit.owner == owner)
        named = [member.name for each in units for member in each.members]
        named += [name for each in self._tasks.values() if each.task.owner == owner for name in each.logs]
        return tuple(path for name in sorted(named) for path in logs.files(folders.log(name)))

    async def apply(self, action: Action) -> None:
        """As in `Driver`."""
        if not self._open:
            raise RetryLater("processes are being ended: nothing is started or changed any more")
        match action:
            case Start():
                self._start(action)
            case Resize():
                unit = self._units.get(action.unit)
                rules.check_resize(action, unit.unit if unit else None)
                if unit:
                    unit.resize(action.replicas, action.begun)
            case Stop():
                self._stop(action)
            case Run():
                self._run(action)
            case Adjust():
                run = self._tasks.get(action.task)
                rules.check_adjust(action, run.task if run else None, forgotten=run is not None and run.forgotten)
                if run:
                    run.adjust(action.parallelism)
            case Forget():
                self._forget(action)

    def _start(self, action: Start) -> None:
        present = self._units.get(action.unit.name)
        stopping = present is not None and present.stopping
        rules.check_start(action, present.unit if present else None, stopping=stopping)
        if present is None:
            present = UnitRun(action.unit, self._site, self._group, self._unit_changed)
            self._units[action.unit.name] = present
        elif not stopping:
            return
        present.resize(action.replicas, action.begun)

    def _stop(self, action: Stop) -> None:
        unit = self._units.get(action.unit)
        if unit is not None:
            rules.check_owner(f"unit {action.unit}", unit.unit.owner, action.owner)
            unit.stop()

    def _run(self, action: Run) -> None:
        rules.check_run(action)
        name = action.task.name
        present = self._tasks.get(name)
        if present is None:
            run = self._task_run(action.task)
            self._tasks[name] = run
            self._group.create_task(run.run())
            self._hints.add(action.task.owner)
        elif present.forgotten:
            raise RetryLater(f"task {name}: an earlier one of the same name is still ending")

    def _task_run(self, task: Task) -> TaskRun:
        if task.restart:
            return CrewRun(task, self._site, self._task_changed)
        return OnceRun(task, self._site, self._turns, self._task_changed)

    def _forget(self, action: Forget) -> None:
        run = self._tasks.get(action.task)
        if run is not None:
            rules.check_owner(f"task {action.task}", run.task.owner, action.owner)
            run.forget()

    def _unit_changed(self, unit: UnitRun) -> None:
        if unit.gone and self._units.get(unit.unit.name) is unit:
            del self._units[unit.unit.name]
            self._prune_logs()
        self._hints.add(unit.unit.owner)
        self._attention.wake()

    def _task_changed(self, run: TaskRun) -> None:
        if run.forgotten and run.finished and self._tasks.get(run.task.name) is run:
            del self._tasks[run.task.name]
            self._prune_logs()
        self._hints.add(run.task.owner)
        self._attention.wake()

    def _prune_logs(self) -> None:
        running = {member.name for unit in self._units.values() for member in unit.members}
        running |= {name for run in self._tasks.values() for name in run.logs}
        logs.prune(self._site.folders.logs, keep=frozenset(running), most=_ENDED_LOGS)

    def _subjects(self) -> Iterator[Subject]:
        for unit in self._units.values():
            yield from unit.members
        for run in self._tasks.values():
            yield from run.members
