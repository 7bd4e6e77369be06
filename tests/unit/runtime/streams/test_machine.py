"""No order of deaths, lost replies, wrong claims and refusals scores a record twice, or out of order, or never."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.runtime.streams import machine
from modelyard.runtime.streams.machine import (
    Begin,
    Broke,
    Commit,
    Drop,
    Due,
    Ended,
    Event,
    Forbidden,
    Found,
    GiveBack,
    Instruction,
    Leave,
    Lost,
    Phase,
    Read,
    Recover,
    Scored,
    State,
    Taken,
    Wait,
    step,
)
from modelyard.runtime.streams.port import Busy, Committed, Fenced, Outcome, Unknown
from modelyard.runtime.streams.records import Group, Message, Offset

GAP = 3
"""Between positions: other partitions lie between."""


def group(first: int, count: int) -> Group:
    messages = tuple(Message(position=first + GAP * each, subject="s", payload=b"") for each in range(count))
    return Group(messages=messages, outgoing=(), records=count)


@dataclass
class Sink:
    """The other side of a commit: outputs and one offset that change together, and only at the expected fence."""

    log: list[int] = field(default_factory=list)
    offset: Offset | None = None
    sequence: int = 0

    def apply(self, fence: int, position: int, messages: tuple[Message, ...]) -> Outcome:
        if fence != (self.offset.fence if self.offset else 0):
            return Fenced()
        self.sequence += 1 + len(messages)
        self.log += [each.position for each in messages]
        self.offset = Offset(position=position, fence=self.sequence, records=len(self.log))
        return Committed(self.offset)


@dataclass
class Flight:
    """A commit on its way; the runner may be gone when it arrives."""

    fence: int
    position: int
    messages: tuple[Message, ...]
    waiting: "Runner | None"
    life: int


@dataclass
class Runner:
    state: State = field(default_factory=State)
    asked: Instruction | None = None
    cursor: int | None = None
    """Up to where was read and scored, None while nothing is read."""
    life: int = 0
    """A new one forgets all answers to the last."""


class World:
    """Time does not matter: whatever can happen next may happen next."""

    def __init__(self, seed: int, records: int, runners: int) -> None:
        self.random = random.Random(seed)
        self.records = [1 + GAP * each for each in range(records)]
        self.sink = Sink()
        self.flights: list[Flight] = []
        self.runners = [Runner() for _ in range(runners)]

    def tell(self, runner: Runner, event: Event) -> None:
        runner.state, instructions = step(runner.state, event, now=0.0)
        for each in instructions:
            self.act(runner, each)

    def act(self, runner: Runner, instruction: Instruction) -> None:
        match instruction:
            case Drop():
                runner.cursor, runner.asked = None, None
            case Read(offset):
                runner.cursor = offset.position
            case Commit(offset, what):
                self.flights.append(Flight(offset.fence, what.last, what.messages, runner, runner.life))
            case Begin():
                self.flights.append(Flight(0, 0, (), runner, runner.life))
            case Recover() | Wait():
                runner.asked = instruction
            case GiveBack():
                runner.asked = None

    def arrive(self, flight: Flight, *, faults: bool) -> None:
        """A commit reaches the sink, or gets lost on the way there or back."""
        self.flights.remove(flight)
        how = self.random.choice(["well", "well", "lost there", "lost back", "busy"]) if faults else "well"
        outcome: Outcome = Unknown("lost")
        if how == "busy":
            outcome = Busy(0.1, "full")
        elif how != "lost there":
            found = self.sink.apply(flight.fence, flight.position, flight.messages)
            outcome = Unknown("lost") if how == "lost back" else found
        runner = flight.waiting
        if runner is not None and runner.life == flight.life:
            self.tell(runner, Ended(outcome))

    def advance(self, runner: Runner, *, faults: bool) -> None:
        """One thing that the runner waits for."""
        if runner.state.phase is Phase.AWAY:
            self.tell(runner, Taken())
        elif isinstance(runner.asked, Recover):
            runner.asked = None
            broken = faults and self.random.random() < 0.2
            self.tell(runner, Broke(Reason.BROKER_UNREACHABLE, "x") if broken else Found(self.sink.offset))
        elif isinstance(runner.asked, Wait):
            runner.asked = None
            self.tell(runner, Due())
        elif runner.state.phase is Phase.FOLLOWING and runner.cursor is not None:
            left = [each for each in self.records if each > (runner.cursor or 0)]
            if left:
                count = min(len(left), self.random.randint(1, 3))
                runner.cursor = left[count - 1]
                self.tell(runner, Scored(group(left[0], count)))

    def disturb(self, runner: Runner) -> None:
        match self.random.choice(["die", "lost", "leave", "broke", "forbidden"]):
            case "die":  # the commits that it has sent are still on their way
                runner.state = State(begun=self.sink.offset is not None)
                runner.asked, runner.cursor, runner.life = None, None, runner.life + 1
            case "lost":
                self.tell(runner, Lost())
            case "leave":
                self.tell(runner, Leave())
            case "broke":
                self.tell(runner, Broke(Reason.BROKER_UNREACHABLE, "x"))
            case _:
                self.tell(runner, Forbidden(Reason.BROKER_REFUSED, "x"))

    def run(self, *, steps: int, faults: bool) -> None:
        for _ in range(steps):
            if self.flights and self.random.random() < 0.5:
                self.arrive(self.random.choice(self.flights), faults=faults)
                continue
            runner = self.random.choice(self.runners)
            if faults and self.random.random() < 0.1:
                self.disturb(runner)
            else:
                self.advance(runner, faults=faults)
            assert self.sink.log == self.records[: len(self.sink.log)]


@given(seed=st.integers(0, 2**32), records=st.integers(0, 20), runners=st.integers(1, 3))
def test_every_record_is_committed_once_and_in_order_whatever_happens(seed: int, records: int, runners: int) -> None:
    world = World(seed, records, runners)
    world.run(steps=300, faults=True)
    world.run(steps=600, faults=False)
    assert world.sink.log == world.records


def committing() -> State:
    state, _ = step(State(), Taken(), 0.0)
    state, _ = step(state, Found(Offset(position=4, fence=9)), 0.0)
    state, told = step(state, Scored(group(5, 2)), 0.0)
    assert told == (Commit(Offset(position=4, fence=9), group(5, 2)),)
    return state


def test_a_partition_that_had_begun_and_has_no_offset_is_never_begun_again() -> None:
    state, _ = step(State(begun=True), Taken(), 0.0)
    state, told = step(state, Found(None), 0.0)
    assert told == (Drop(), Wait())
    assert state.problem is not None
    assert state.problem.reason is Reason.OFFSET_LOST
    state, told = step(state, Due(), 5.0)
    assert told == (Recover(),)


def test_a_partition_that_leaves_waits_for_the_commit_under_way() -> None:
    state, told = step(committing(), Leave(), 0.0)
    assert told == ()
    state, told = step(state, Ended(Committed(Offset(position=8, fence=12))), 0.0)
    assert (state.phase, told) == (Phase.AWAY, (Drop(), GiveBack()))


@pytest.mark.parametrize("outcome", [Fenced(), Unknown("no reply"), Busy(1.0, "full")])
def test_a_partition_that_leaves_goes_however_its_last_commit_ends(outcome: Outcome) -> None:
    state, _ = step(committing(), Leave(), 0.0)
    state, told = step(state, Ended(outcome), 0.0)
    assert (state.phase, told) == (Phase.AWAY, (Drop(), GiveBack()))


def test_only_a_refused_group_is_sent_again() -> None:
    before = committing()
    state, told = step(before, Ended(Busy(2.0, "full", Reason.BROKER_FULL)), 0.0)
    assert told == (Commit(Offset(position=4, fence=9), group(5, 2), after_seconds=2.0),)
    assert state.problem == machine.Problem(Reason.BROKER_FULL, "full")
    _, told = step(before, Ended(Unknown("no reply")), 0.0)
    assert told == (Drop(), Recover())


def test_pauses_grow_and_progress_ends_them() -> None:
    state, _ = step(State(), Taken(), 0.0)
    pauses = []
    for _ in range(8):
        state, _ = step(state, Broke(Reason.BROKER_UNREACHABLE, "gone"), 0.0)
        pauses.append(state.due)
        state, _ = step(state, Due(), 0.0)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (machine.FIRST_PAUSE_SECONDS, machine.LONGEST_PAUSE_SECONDS)
    state, _ = step(state, Found(Offset(position=1, fence=1)), 0.0)
    state, _ = step(state, Scored(group(2, 1)), 0.0)
    state, _ = step(state, Ended(Committed(Offset(position=2, fence=3))), 0.0)
    assert (state.failures, state.problem) == (0, None)


def test_a_record_that_stops_the_partition_is_told_until_it_is_gone() -> None:
    state, _ = step(State(), Taken(), 0.0)
    state, _ = step(state, Found(Offset(position=1, fence=1)), 0.0)
    state, _ = step(state, Forbidden(Reason.RECORD_FAILED, "record 2"), 0.0)
    state, _ = step(state, Due(), 9.0)
    state, told = step(state, Found(Offset(position=1, fence=1)), 9.0)
    assert isinstance(told[0], Read)
    assert state.problem is not None
    assert state.problem.reason is Reason.RECORD_FAILED
