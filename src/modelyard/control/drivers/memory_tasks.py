"""Tasks of the driver for tests: the same rules as for processes, which end when a lever says so."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelyard.base.clock import Clock
from modelyard.base.conditions import Reason
from modelyard.control.drivers import rules
from modelyard.control.drivers.hints import Hints
from modelyard.control.drivers.ledger import Ask, Ledger
from modelyard.control.drivers.machine import share
from modelyard.control.drivers.outcome import Done, End, Failed, Final, Left, Outcome, combine, judge
from modelyard.control.drivers.variables import CannotStart, SecretFiles, Secrets, files, values
from modelyard.control.ir import names
from modelyard.control.ir.observed import MemberState, ObservedMember, ObservedTask, Trouble
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.wire.report import Report, failure


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """What all units and tasks of one driver share."""

    clock: Clock
    ledger: Ledger
    hints: Hints
    secrets: Secrets
    secret_files: SecretFiles
    pids: Iterator[int]

    def admit(self, what: Unit | Task, ask: Ask) -> None:
        """Raises CannotStart, as starting a process would."""
        refused = self.ledger.admit(ask)
        if refused:
            raise CannotStart(Reason.UNSCHEDULABLE, refused)
        values(what.variables, what.owner.namespace, self.secrets)
        files(what.credentials, what.owner.namespace, self.secret_files)


@dataclass(slots=True)
class _Member:
    name: str
    state: MemberState = MemberState.PENDING
    pid: int = 0
    report: Report | None = None
    trouble: Trouble | None = None
    outcome: Outcome = Left()  # noqa: RUF009  a frozen value


@dataclass(slots=True)
class _Party:
    """Members that come and go together. due: when to try again; kill_at: the end of the grace of those that end."""

    name: str
    members: tuple[_Member, ...]
    due: float
    began: float = 0.0
    kill_at: float = math.inf
    waits: bool = False
    counted: bool = False
    leaving: bool = False
    evicted_for: str = ""
    backoff: rules.Backoff = field(default_factory=rules.Backoff)
    refusals: rules.Backoff = field(default_factory=rules.Backoff)

    @property
    def running(self) -> tuple[_Member, ...]:
        return tuple(member for member in self.members if member.pid)


class MemoryTask:
    """settle: do what the clock says."""

    def __init__(self, task: Task, world: World) -> None:
        self.task = task
        self.parallelism = task.parallelism
        self.forgotten = False
        self.finished_at: float | None = None
        self._world = world
        self._started_at = world.clock.now()
        self._failures = 0
        self._concluded = False
        self._report: Report | None = None
        self._message = ""
        self._parties: dict[int, _Party] = {}
        self._deadline = world.clock.monotonic() + (task.deadline_seconds or math.inf)
        if not task.restart:
            self._once()
        elif task.gang:
            self._add(0, tuple(range(task.parallelism)), task.name)
        else:
            self._change()
        self._changed()

    @property
    def gone(self) -> bool:
        return self.forgotten and self.finished_at is not None

    def observed(self) -> ObservedTask:
        """What is known now."""
        over = self.finished_at is not None
        members = () if over else tuple(member for _, each in sorted(self._parties.items()) for member in each.members)
        return ObservedTask(
            name=self.task.name,
            owner=self.task.owner,
            attempt=self.task.attempt,
            parallelism=self.parallelism,
            started_at=self._started_at,
            members=tuple(
                ObservedMember(name=each.name, state=each.state, pid=each.pid, report=each.report, trouble=each.trouble)
                for each in members
            ),
            failures=self._failures,
            finished_at=self.finished_at,
            report=self._report if over else None,
            message=self._message if over else "",
        )

    def adjust(self, parallelism: int) -> None:
        """As in `Adjust`."""
        before, self.parallelism = self.parallelism, parallelism
        if before != parallelism and not self._over:
            self._change()
            self._changed()

    def forget(self) -> None:
        """End it if it still runs. Again: nothing, since a hint of no change would be answered by the same action."""
        if not self.forgotten:
            self.forgotten = True
            self._leave()

    def look_again(self) -> None:
        """Something came that it may be waiting for."""
        for party in self._parties.values():
            if party.waits:
                party.due = self._world.clock.monotonic()

    def settle(self) -> None:
        """Do what the clock says."""
        now = self._world.clock.monotonic()
        for number, party in tuple(self._parties.items()):
            self._pass(number, party, now)
        if now >= self._deadline and not self._over:
            self.conclude(None, f"took longer than {self.task.deadline_seconds:g} s and was ended")
        ended = all(party.leaving and not party.running for party in self._parties.values())
        if self.finished_at is None and self._over and ended:
            for party in self._parties.values():
                self._world.ledger.release(party.name)
            self.finished_at = self._world.clock.now()
            self._changed()

    def conclude(self, report: Report | None, message: str = "") -> None:
        """How the task ends; the first one counts."""
        if not self._concluded:
            self._concluded, self._report, self._message = True, report, message
            self._leave()
            if not self.task.restart:
                for number, party in tuple(self._parties.items()):
                    self._drop(number, party)

    def member(self, name: str) -> bool:
        """Whether a process of that name runs."""
        return any(member.name == name for party in self._parties.values() for member in party.running)

    def report(self, name: str, report: Report) -> None:
        """A member replaces its report."""
        for party in self._parties.values():
            for member in party.running:
                if member.name == name:
                    member.report = report
                    self._changed()

    def end(self, name: str, status: int, report: Report | None, how: str) -> None:
        """A member's process ends."""
        for number, party in tuple(self._parties.items()):
            for member in party.running:
                if member.name == name:
                    self._end(number, party, member, End(status=status, report=report, how=how))

    @property
    def _over(self) -> bool:
        return self._concluded or self.forgotten

    def _once(self) -> None:
        """One process, whose end is the task's."""
        task = self.task
        self._add(0, (0,), task.name)
        party = self._parties[0]
        try:
            ask = Ask(name=task.name, share=share(task.resources), priority=task.priority, waits=False)
            self._world.admit(task, ask)
        except CannotStart as refusal:
            self.conclude(failure(refusal.reason, refusal.message, retry=True))
        else:
            self._begin(party)

    def _change(self) -> None:
        change = rules.change({number: party.leaving for number, party in self._parties.items()}, self.parallelism)
        for number in change.leave:
            self._ask(self._parties[number], for_good=True)
        for number in change.add:
            self._add(number, (number,), names.member(self.task.name, number))

    def _add(self, number: int, indices: tuple[int, ...], name: str) -> None:
        once = not self.task.restart
        members = tuple(_Member(name=name if once else names.member(self.task.name, index)) for index in indices)
        self._parties[number] = _Party(name=name, members=members, due=self._world.clock.monotonic())

    def _pass(self, number: int, party: _Party, now: float) -> None:
        if party.running:
            if now >= party.kill_at:
                for member in party.running:
                    self._end(number, party, member, End(status=-9, how="was ended by SIGKILL"))
        elif party.leaving:
            self._drop(number, party)
        elif party.evicted_for:
            self._make_room(party)
        elif now >= party.due:
            self._try(party)

    def _try(self, party: _Party) -> None:
        task = self.task
        party.waits = False
        ask = Ask(
            name=party.name,
            share=share(task.resources, len(party.members)),
            priority=task.priority,
            evict=self._evictor(party),
        )
        try:
            self._world.admit(task, ask)
        except CannotStart as refusal:
            party.waits, party.due = True, self._world.clock.monotonic() + party.refusals.pause(None)
            for member in party.members:
                preempted = member.trouble is not None and member.trouble.reason == Reason.PREEMPTED
                if not (preempted and refusal.reason is Reason.UNSCHEDULABLE):
                    self._troubled(member, refusal.reason, refusal.message)
            return
        self._begin(party)

    def _begin(self, party: _Party) -> None:
        party.began, party.kill_at, party.due = self._world.clock.monotonic(), math.inf, math.inf
        party.refusals, party.counted = rules.Backoff(), False
        waits = (Reason.UNSCHEDULABLE, Reason.SECRET_NOT_FOUND, Reason.PREEMPTED)
        for member in party.members:
            member.state, member.pid, member.outcome = MemberState.RUNNING, next(self._world.pids), Left()
            if member.trouble is not None and member.trouble.reason in waits:
                member.trouble = None
        self._changed()

    def _end(self, number: int, party: _Party, member: _Member, end: End) -> None:
        asked = member.state is MemberState.ENDING
        seconds = self._world.clock.monotonic() - party.began
        outcome = judge(
            End(status=end.status, report=end.report, asked=asked, how=end.how, said=end.said, seconds=seconds)
        )
        member.pid, member.outcome, member.report = 0, outcome, end.report or member.report
        member.state = MemberState.DONE if isinstance(outcome, Done) else MemberState.PENDING
        if isinstance(outcome, Failed):
            self._failures += not party.counted
            party.counted = True
            self._troubled(member, outcome.reason, outcome.message)
        if not isinstance(outcome, Done):
            self._ask(party, for_good=party.leaving)
        if not party.running:
            self._sum_up(number, party)
        self._changed()

    def _sum_up(self, number: int, party: _Party) -> None:
        outcome = combine([member.outcome for member in party.members])
        if not isinstance(outcome, Done):
            for member in party.members:
                member.state = MemberState.PENDING
        match outcome:
            case Done(report) | Final(report):
                party.leaving = True
                self.conclude(report)
            case Failed(seconds=seconds, progress=progress):
                party.due = self._world.clock.monotonic() + party.backoff.pause_after(seconds, progress)
            case Left():
                party.due = self._world.clock.monotonic() + party.refusals.pause(None)
                party.waits = True
        if party.leaving and not isinstance(outcome, Done):
            self._drop(number, party)
        elif party.evicted_for:
            self._make_room(party)

    def _ask(self, party: _Party, *, for_good: bool) -> None:
        """To end, within the grace."""
        if for_good and not party.leaving:
            party.leaving = True
            self._world.ledger.leaving(party.name)
        party.kill_at = min(party.kill_at, self._world.clock.monotonic() + self.task.grace_seconds)
        for member in party.running:
            member.state = MemberState.ENDING

    def _leave(self) -> None:
        for party in self._parties.values():
            self._ask(party, for_good=True)
        self._changed()

    def _drop(self, number: int, party: _Party) -> None:
        if all(member.state is MemberState.DONE for member in party.members):
            return
        self._parties.pop(number, None)
        self._world.ledger.release(party.name)
        self._changed()

    def _evictor(self, party: _Party) -> Callable[[str], None]:
        def evict(whom: str) -> None:
            party.evicted_for = whom
            self._ask(party, for_good=False)
            self._changed()

        return evict

    def _make_room(self, party: _Party) -> None:
        for member in party.members:
            told = f"made room for {party.evicted_for}; goes on when there is room again"
            self._troubled(member, Reason.PREEMPTED, told)
        party.evicted_for = ""
        self._world.ledger.release(party.name)

    def _troubled(self, member: _Member, reason: str, message: str) -> None:
        before = member.trouble
        if before is None or (before.reason, before.message) != (reason, message) or reason == Reason.CRASHED:
            member.trouble = Trouble(reason=reason, message=message, since=self._world.clock.now())
            self._changed()

    def _changed(self) -> None:
        self._world.hints.add(self.task.owner)
