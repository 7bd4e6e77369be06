"""The driver for tests: no processes, the same rules, and levers for what processes do by themselves.

Time passes with its clock: call `observe` (or any lever) after moving a manual clock.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from modelyard.base.clock import Clock
from modelyard.base.conditions import Reason
from modelyard.control.drivers import rules
from modelyard.control.drivers.hints import Hints
from modelyard.control.drivers.machine import Ledger, Machine
from modelyard.control.drivers.variables import CannotStart, Secrets, values
from modelyard.control.ir import names
from modelyard.control.ir.actions import Action, Forget, Resize, Run, Start, Stop
from modelyard.control.ir.observed import (
    Capabilities,
    Observed,
    ObservedReplica,
    ObservedTask,
    ObservedUnit,
    ReplicaState,
    Trouble,
)
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key
from modelyard.wire.report import Report, failure

_PLENTY = Machine(memory_bytes=2**50, cpu_millis=10**9)


@dataclass(slots=True)
class _Replica:
    """due: when the clock will change something: a start, a startup timeout, the end of a drain."""

    name: str
    unit: Unit
    due: float
    state: ReplicaState = ReplicaState.PENDING
    pid: int = 0
    started_at: float = 0.0
    ready_at: float = 0.0
    restarts: int = 0
    trouble: Trouble | None = None
    backoff: rules.Backoff = field(default_factory=rules.Backoff)
    refusals: rules.Backoff = field(default_factory=rules.Backoff)


@dataclass(slots=True)
class _Unit:
    unit: Unit
    replicas: int = 0
    stopping: bool = False
    members: dict[int, _Replica] = field(default_factory=dict)


@dataclass(slots=True)
class _Task:
    task: Task
    due: float
    observed: ObservedTask


class MemoryDriver:
    """Levers raise ValueError on what no process could do.

    machine and secrets: as for the driver of processes; by default there is room for everything and no Secret.
    """

    def __init__(self, clock: Clock, *, machine: Machine = _PLENTY, secrets: Secrets = lambda *_: None) -> None:
        self._clock = clock
        self._secrets = secrets
        self._ledger = Ledger(machine, freed=self.look_again)
        self._hints = Hints()
        self._units: dict[str, _Unit] = {}
        self._tasks: dict[str, _Task] = {}
        self._pids = itertools.count(1000)

    @property
    def capabilities(self) -> Capabilities:
        """As the driver of processes."""
        return Capabilities(enforces=frozenset({"memory"}))

    def observe(self, owner: Key | None = None) -> Observed:
        """What runs at the clock's time."""
        self._settle()
        units = (self._units[name] for name in sorted(self._units))
        tasks = (self._tasks[name] for name in sorted(self._tasks))
        return Observed(
            units=tuple(_observed(each) for each in units if owner in (None, each.unit.owner)),
            tasks=tuple(each.observed for each in tasks if owner in (None, each.task.owner)),
        )

    def hints(self) -> AsyncIterator[Key]:
        """Owners of what changed."""
        return self._hints.stream()

    async def apply(self, action: Action) -> None:
        """As in `Driver`."""
        self._settle()
        match action:
            case Start():
                self._start(action)
            case Resize():
                unit = self._units.get(action.unit)
                rules.check_resize(action, unit.unit if unit else None)
                if unit:
                    self._change(unit, action.replicas, stopping=False)
            case Stop():
                unit = self._units.get(action.unit)
                if unit:
                    rules.check_owner(f"unit {action.unit}", unit.unit.owner, action.owner)
                    self._change(unit, 0, stopping=True)
            case Run():
                self._run(action)
            case Forget():
                task = self._tasks.get(action.task)
                if task:
                    rules.check_owner(f"task {action.task}", task.task.owner, action.owner)
                    del self._tasks[action.task]
                    self._ledger.release(action.task)
                    self._hints.add(action.owner)
        self._settle()

    def look_again(self) -> None:
        """As of the driver of processes."""
        for member in self._members():
            waits = member.trouble and member.trouble.reason in (Reason.UNSCHEDULABLE, Reason.SECRET_NOT_FOUND)
            if waits and member.state is ReplicaState.PENDING:
                member.due = self._clock.monotonic()

    def make_ready(self, replica: str) -> None:
        """A starting replica reports that it is ready."""
        member = self._member(replica, ReplicaState.STARTING)
        member.state, member.trouble = ReplicaState.READY, None
        member.ready_at = self._clock.monotonic()
        self._hints.add(member.unit.owner)

    def crash(self, replica: str, reason: str = Reason.CRASHED, message: str = "ended with exit status 1") -> None:
        """A starting or ready replica ends by itself, or reports a failure."""
        member = self._member(replica, ReplicaState.STARTING, ReplicaState.READY)
        self._ended(member, reason, message)

    def drained(self, replica: str) -> None:
        """A draining replica has answered its last request and ends."""
        self._gone(self._member(replica, ReplicaState.DRAINING))
        self._settle()

    def finish(self, task: str, report: Report | None = None, message: str = "") -> None:
        """A running task ends and leaves a report, or ends without one for the reason in message."""
        self._settle()
        found = self._tasks.get(task)
        if found is None or found.observed.finished_at is not None:
            raise ValueError(f"task {task} does not run")
        if (report is None) == (not message) or (report and report.serve):
            raise ValueError("a task ends with a prepare or failure report, or with a message")
        self._finish(found, report, message)

    def _start(self, action: Start) -> None:
        unit = self._units.get(action.unit.name)
        rules.check_start(action, unit.unit if unit else None, stopping=unit is not None and unit.stopping)
        if unit is None or unit.stopping:
            unit = self._units.setdefault(action.unit.name, _Unit(unit=action.unit))
            self._change(unit, action.replicas, stopping=False)

    def _change(self, unit: _Unit, replicas: int, *, stopping: bool) -> None:
        same = (unit.replicas, unit.stopping) == (replicas, stopping)
        unit.replicas, unit.stopping = replicas, stopping
        now = self._clock.monotonic()
        leaving = {number: each.state is ReplicaState.DRAINING for number, each in unit.members.items()}
        change = rules.change(leaving, replicas)
        for number in change.leave:
            member = unit.members[number]
            # One that was never ready has no requests to finish.
            drain = unit.unit.drain_seconds if member.state is ReplicaState.READY else 0.0
            member.state, member.due = ReplicaState.DRAINING, now + drain
        for number in change.add:
            name = names.replica(unit.unit.name, number)
            unit.members[number] = _Replica(name=name, unit=unit.unit, due=now)
        if not same or change.add or change.leave:
            self._hints.add(unit.unit.owner)

    def _run(self, action: Run) -> None:
        rules.check_run(action)
        task = action.task
        if task.name in self._tasks:
            return
        observed = ObservedTask(name=task.name, owner=task.owner, attempt=task.attempt)
        started = _Task(task=task, due=self._clock.monotonic() + task.deadline_seconds, observed=observed)
        self._tasks[task.name] = started
        self._hints.add(task.owner)
        try:
            self._admit(task.name, task)
        except CannotStart as refusal:
            self._finish(started, failure(refusal.reason, refusal.message, retry=True), "")

    def _finish(self, task: _Task, report: Report | None, message: str) -> None:
        now = self._clock.now()
        task.observed = ObservedTask(
            name=task.task.name,
            owner=task.task.owner,
            attempt=task.task.attempt,
            finished_at=now,
            report=report,
            message=message,
        )
        self._ledger.release(task.task.name)
        self._hints.add(task.task.owner)

    def _settle(self) -> None:
        """Do what the clock says."""
        now = self._clock.monotonic()
        for member in self._members():
            if now >= member.due:
                self._pass(member)
        for name, unit in tuple(self._units.items()):
            if unit.stopping and not unit.members:
                del self._units[name]
                self._hints.add(unit.unit.owner)
        for task in self._tasks.values():
            if task.observed.finished_at is None and now >= task.due:
                self._finish(task, None, f"took longer than {task.task.deadline_seconds:g} s and was ended")

    def _pass(self, member: _Replica) -> None:
        match member.state:
            case ReplicaState.PENDING:
                self._try(member)
            case ReplicaState.STARTING:
                message = f"was not ready within {member.unit.startup_timeout_seconds:g} s and was ended"
                self._ended(member, Reason.STARTUP_TIMEOUT, message)
            case ReplicaState.DRAINING:
                self._gone(member)
            case ReplicaState.READY:
                pass

    def _try(self, member: _Replica) -> None:
        now = self._clock.monotonic()
        try:
            self._admit(member.name, member.unit)
        except CannotStart as refusal:
            member.due = now + member.refusals.pause(None)
            self._troubled(member, refusal.reason, refusal.message)
            return
        member.refusals = rules.Backoff()
        member.state, member.pid, member.started_at = ReplicaState.STARTING, next(self._pids), self._clock.now()
        member.due = now + member.unit.startup_timeout_seconds
        self._hints.add(member.unit.owner)

    def _admit(self, name: str, what: Unit | Task) -> None:
        refused = self._ledger.admit(name, what.resources)
        if refused:
            raise CannotStart(Reason.UNSCHEDULABLE, refused)
        values(what.variables, what.owner.namespace, self._secrets)

    def _ended(self, member: _Replica, reason: str, message: str) -> None:
        now = self._clock.monotonic()
        ready_seconds = now - member.ready_at if member.state is ReplicaState.READY else None
        member.state, member.pid = ReplicaState.PENDING, 0
        member.restarts += 1
        member.due = now + member.backoff.pause(ready_seconds)
        self._troubled(member, reason, message)

    def _troubled(self, member: _Replica, reason: str, message: str) -> None:
        member.trouble = Trouble(reason=reason, message=message, since=self._clock.now())
        self._hints.add(member.unit.owner)

    def _gone(self, member: _Replica) -> None:
        unit = self._units[member.unit.name]
        unit.members = {number: each for number, each in unit.members.items() if each is not member}
        self._ledger.release(member.name)
        self._hints.add(member.unit.owner)

    def _members(self) -> list[_Replica]:
        return [member for unit in self._units.values() for member in unit.members.values()]

    def _member(self, name: str, *states: ReplicaState) -> _Replica:
        self._settle()
        found = next((member for member in self._members() if member.name == name), None)
        if found is None or found.state not in states:
            state = found.state if found else "not there"
            raise ValueError(f"replica {name} is {state}, it must be {' or '.join(states)}")
        return found


def _observed(unit: _Unit) -> ObservedUnit:
    members = tuple(
        ObservedReplica(
            name=each.name,
            state=each.state,
            address=f"unix:/memory/{each.name}.sock" if each.state is ReplicaState.READY else "",
            pid=each.pid,
            started_at=each.started_at,
            restarts=each.restarts,
            trouble=each.trouble,
        )
        for _, each in sorted(unit.members.items())
    )
    return ObservedUnit(unit=unit.unit, replicas=unit.replicas, members=members)
