"""The driver for tests: no processes, the same rules, and levers for what processes do by themselves.

Time passes with its clock: call `observe` (or any lever) after moving a manual clock.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from msgspec import structs

from modelyard.base.clock import Clock
from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.control.drivers import rules
from modelyard.control.drivers.hints import Hints
from modelyard.control.drivers.ledger import SERVICE_PRIORITY, Ask, Ledger
from modelyard.control.drivers.machine import Machine, share
from modelyard.control.drivers.memory_tasks import MemoryTask, World
from modelyard.control.drivers.outcome import known
from modelyard.control.drivers.variables import CannotStart, SecretFiles, Secrets
from modelyard.control.ir import names
from modelyard.control.ir.actions import Action, Adjust, Forget, Resize, Run, Start, Stop
from modelyard.control.ir.observed import (
    Capabilities,
    Observed,
    ObservedReplica,
    ObservedUnit,
    ReplicaState,
    Trouble,
)
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key
from modelyard.wire.report import Report, StreamReport
from modelyard.wire.work import WorkSpec

_RUNS = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING)
_PLENTY = Machine(memory_bytes=2**50, cpu_millis=10**9)


@dataclass(slots=True)
class _Replica:
    """due: when the clock will change something: a start, a startup timeout, the end of a drain.

    work: what its process was told to do.
    """

    name: str
    unit: Unit
    due: float
    state: ReplicaState = ReplicaState.PENDING
    pid: int = 0
    started_at: float = 0.0
    ready_at: float = 0.0
    restarts: int = 0
    work: WorkSpec | None = None
    report: Report | None = None
    trouble: Trouble | None = None
    backoff: rules.Backoff = field(default_factory=rules.Backoff)
    refusals: rules.Backoff = field(default_factory=rules.Backoff)


@dataclass(slots=True)
class _Unit:
    unit: Unit
    replicas: int = 0
    begun: tuple[int, ...] = ()
    stopping: bool = False
    members: dict[int, _Replica] = field(default_factory=dict)


class MemoryDriver:
    """Levers raise ValueError on what no process could do.

    machine, secrets, secret_files: as for the driver of processes; by default there is room for everything, no Secret.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        machine: Machine = _PLENTY,
        secrets: Secrets = lambda *_: None,
        secret_files: SecretFiles = lambda *_: None,
    ) -> None:
        self._clock = clock
        self._ledger = Ledger(machine, freed=self.look_again)
        self._hints = Hints()
        self._pids = itertools.count(1000)
        self._world = World(
            clock=clock,
            ledger=self._ledger,
            hints=self._hints,
            secrets=secrets,
            secret_files=secret_files,
            pids=self._pids,
        )
        self._units: dict[str, _Unit] = {}
        self._tasks: dict[str, MemoryTask] = {}

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
            tasks=tuple(each.observed() for each in tasks if owner in (None, each.task.owner)),
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
                    self._change(unit, action.replicas, action.begun, stopping=False)
            case Stop():
                unit = self._units.get(action.unit)
                if unit:
                    rules.check_owner(f"unit {action.unit}", unit.unit.owner, action.owner)
                    self._change(unit, 0, unit.begun, stopping=True)
            case Run():
                self._run(action)
            case Forget():
                task = self._tasks.get(action.task)
                if task:
                    rules.check_owner(f"task {action.task}", task.task.owner, action.owner)
                    task.forget()
            case Adjust():
                task = self._tasks.get(action.task)
                rules.check_adjust(action, task.task if task else None, forgotten=task is not None and task.forgotten)
                if task:
                    task.adjust(action.parallelism)
        self._settle()

    def look_again(self) -> None:
        """As of the driver of processes."""
        for member in self._members():
            waits = member.trouble and member.trouble.reason in (Reason.UNSCHEDULABLE, Reason.SECRET_NOT_FOUND)
            if waits and member.state is ReplicaState.PENDING:
                member.due = self._clock.monotonic()
        for task in self._tasks.values():
            task.look_again()

    def make_ready(self, replica: str) -> None:
        """A starting replica reports that it is ready."""
        member = self._member(replica, ReplicaState.STARTING)
        if member.unit.work.stream is None:
            self._ready(member)
        else:
            before = member.report.stream if member.report else None
            self.report(replica, structs.replace(before or StreamReport(), ready=True))

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
        if found is None or found.finished_at is not None or found.task.restart:
            raise ValueError(f"task {task} does not run, or ends by its members")
        if (report is None) == (not message) or (report and (report.serve or report.stream)):
            raise ValueError("a task ends with a report of its work or a failure, or with a message")
        found.conclude(report, message)
        self._settle()

    def report(self, name: str, report: Report | StreamReport) -> None:
        """A member of a task, or a replica, replaces its report; what that says about one of a stream happens. Others
        report only what came of comparing copies of requests.

        One that tells that it is ready is so, one that tells a failure ends, unless it is leaving anyway.
        """
        report = Report(stream=report) if isinstance(report, StreamReport) else report
        if any(each.name == name for each in self._members()):
            self._reported(self._member(name, *_RUNS), report)
        else:
            self._running(name).report(name, report)

    def work(self, replica: str) -> WorkSpec:
        """What the process of a replica was told to do."""
        member = self._member(replica, *_RUNS)
        if member.work is None:
            raise ValueError(f"replica {replica} left before it was started")
        return member.work

    def end(self, member: str, *, status: int = 0, report: Report | None = None, how: str = "") -> None:
        """A member of a task with `restart` ends with that exit status and last report."""
        self._running(member).end(member, status, report, how or f"ended with exit status {status}")
        self._settle()

    def _start(self, action: Start) -> None:
        unit = self._units.get(action.unit.name)
        rules.check_start(action, unit.unit if unit else None, stopping=unit is not None and unit.stopping)
        if unit is None or unit.stopping:
            unit = self._units.setdefault(action.unit.name, _Unit(unit=action.unit))
            self._change(unit, action.replicas, action.begun, stopping=False)

    def _change(self, unit: _Unit, replicas: int, begun: tuple[int, ...], *, stopping: bool) -> None:
        same = (unit.replicas, unit.begun, unit.stopping) == (replicas, begun, stopping)
        unit.replicas, unit.begun, unit.stopping = replicas, begun, stopping
        now = self._clock.monotonic()
        leaving = {number: each.state is ReplicaState.DRAINING for number, each in unit.members.items()}
        change = rules.change(leaving, replicas)
        for number in change.leave:
            member = unit.members[number]
            self._ledger.leaving(member.name)
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
        name = action.task.name
        present = self._tasks.get(name)
        if present is None:
            self._tasks[name] = MemoryTask(action.task, self._world)
        elif present.forgotten:
            raise RetryLater(f"task {name}: an earlier one of the same name is still ending")

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
        for name, task in tuple(self._tasks.items()):
            task.settle()
            if task.gone:
                del self._tasks[name]
                self._hints.add(task.task.owner)

    def _pass(self, member: _Replica) -> None:
        match member.state:
            case ReplicaState.PENDING:
                self._try(member)
            case ReplicaState.STARTING if rules.says_why(member.report):
                pass
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
            ask = Ask(name=member.name, share=share(member.unit.resources), priority=SERVICE_PRIORITY)
            self._world.admit(member.unit, ask)
        except CannotStart as refusal:
            member.due = now + member.refusals.pause(None)
            self._troubled(member, refusal.reason, refusal.message)
            return
        member.refusals = rules.Backoff()
        member.state, member.pid, member.started_at = ReplicaState.STARTING, next(self._pids), self._clock.now()
        member.due = now + member.unit.startup_timeout_seconds
        member.work = rules.told(member.unit.work, self._units[member.unit.name].begun)
        self._hints.add(member.unit.owner)

    def _ready(self, member: _Replica) -> None:
        member.state, member.trouble = ReplicaState.READY, None
        member.ready_at = self._clock.monotonic()
        self._hints.add(member.unit.owner)

    def _reported(self, member: _Replica, report: Report) -> None:
        follows = member.unit.work.stream is not None
        compares = report.serve is not None and report.serve.shadow is not None
        if not (report.stream or report.failure if follows else compares and member.state is ReplicaState.READY):
            raise ValueError(
                f"replica {member.name}: replicas of streams report stream or failure, others that are ready shadow"
            )
        if report != member.report:
            member.report = report
            self._hints.add(member.unit.owner)
        if member.state is ReplicaState.STARTING and report.stream is not None and report.stream.ready:
            self._ready(member)
        elif report.failure is not None and member.state is not ReplicaState.DRAINING:
            self._ended(member, known(report.failure.reason, Reason.LOAD_FAILED), report.failure.message)

    def _ended(self, member: _Replica, reason: str, message: str) -> None:
        now = self._clock.monotonic()
        ready_seconds = now - member.ready_at if member.state is ReplicaState.READY else None
        member.state, member.pid, member.report = ReplicaState.PENDING, 0, None
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

    def _running(self, name: str) -> MemoryTask:
        self._settle()
        found = next((task for task in self._tasks.values() if task.task.restart and task.member(name)), None)
        if found is None:
            raise ValueError(f"member {name} does not run")
        return found

    def _member(self, name: str, *states: ReplicaState) -> _Replica:
        self._settle()
        found = next((member for member in self._members() if member.name == name), None)
        if found is None or found.state not in states:
            state = found.state if found else "not there"
            raise ValueError(f"replica {name} is {state}, it must be {' or '.join(states)}")
        return found


def _observed(unit: _Unit) -> ObservedUnit:
    listens = unit.unit.work.stream is None  # to the gateway's requests
    members = tuple(
        ObservedReplica(
            name=each.name,
            state=each.state,
            address=f"unix:/memory/{each.name}.sock" if listens and each.state is ReplicaState.READY else "",
            pid=each.pid,
            started_at=each.started_at,
            restarts=each.restarts,
            report=each.report,
            trouble=each.trouble,
        )
        for _, each in sorted(unit.members.items())
    )
    return ObservedUnit(unit=unit.unit, replicas=unit.replicas, begun=unit.begun, members=members)
