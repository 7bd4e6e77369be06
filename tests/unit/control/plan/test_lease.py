"""At no moment do two hold the Lease, whatever stops, is lost or comes late."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.control.plan import lease
from modelyard.control.plan.lease import Look, Lost, Record, Rest, State, Timing, Write


def other(version: str = "1", duration: float = 15.0) -> Record:
    return Record("other", version, duration)


def test_who_knows_nothing_looks_first() -> None:
    assert lease.step(State(me="a"), 100.0) == Look()


def test_what_is_free_is_taken_at_once() -> None:
    assert lease.step(lease.saw(State(me="a"), None, 5.0), 5.0) == Write(None, 0, takes=True)
    released = Record("", "7", 1.0, transitions=3)
    assert lease.step(lease.saw(State(me="a"), released, 5.0), 5.0) == Write("7", 4, takes=True)


def test_what_another_one_holds_is_taken_when_it_was_not_renewed_for_as_long_as_it_says() -> None:
    state = lease.saw(State(me="a"), other(), 100.0)
    assert lease.step(state, 100.0) == Rest(1.0)
    for now in range(101, 115):
        assert lease.step(state, float(now)) == Look()
        state = lease.saw(state, other(), float(now))
    assert lease.step(state, 115.0) == Write("1", 1, takes=True)
    renewed = lease.saw(state, other("2"), 115.0)
    assert lease.step(renewed, 129.0) == Look()
    patient = lease.saw(State(me="a"), other(duration=60.0), 0.0)
    assert lease.step(patient, 59.0) == Look()
    assert lease.step(patient, 60.0) == Write("1", 1, takes=True)


def test_a_record_cannot_ask_for_more_than_ten_minutes_nor_for_less_than_is_usual() -> None:
    assert lease.step(lease.saw(State(me="a"), other(duration=1e9), 0.0), 600.0) == Write("1", 1, takes=True)
    assert lease.step(lease.saw(State(me="a"), other(duration=0.0), 0.0), 14.9) == Look()


def test_the_holder_renews_and_counts_from_when_it_asked() -> None:
    state = lease.wrote(State(me="a"), Record("a", "2"), 100.0)
    assert lease.step(state, 101.0) == Rest(4.0)
    assert lease.step(state, 105.0) == Write("2", 0, takes=False)
    assert lease.holds(state, 113.9)
    assert not lease.holds(state, 114.0)
    assert not lease.holds(state, 1e9)


def test_a_holder_that_hears_nothing_looks_and_gives_up_in_time() -> None:
    state = lease.doubted(lease.wrote(State(me="a"), Record("a", "2"), 100.0), 105.0)
    assert lease.step(state, 105.5) == Rest(0.5)
    assert lease.step(state, 106.0) == Look()
    found = lease.saw(state, Record("a", "3"), 106.0)  # the answer was lost, and not the request
    assert lease.step(found, 106.0) == Write("3", 0, takes=False)
    assert isinstance(lease.step(state, 110.0), Lost)


@pytest.mark.parametrize(("found", "who"), [(other("9"), "other"), (Record("", "9"), "nobody"), (None, "nobody")])
def test_a_holder_that_sees_another_one_stops(found: Record | None, who: str) -> None:
    state = lease.doubted(lease.wrote(State(me="a"), Record("a", "2"), 100.0), 105.0)
    assert lease.step(lease.saw(state, found, 106.0), 106.0) == Lost(f"{who} holds it now")


@dataclass
class Request:
    """On its way. applied: by the server, which may happen long after its sender stopped waiting."""

    what: Look | Write
    sender: str
    began: float
    applied: bool = False
    answer: Record | None = None
    refused: bool = False


@dataclass
class Server:
    record: Record | None = None
    writes: int = 0

    def apply(self, request: Request) -> None:
        request.applied = True
        if isinstance(request.what, Look):
            request.answer = self.record
        elif (self.record.version if self.record else None) != request.what.version:
            request.refused = True
        else:
            self.writes += 1
            self.record = request.answer = Record(request.sender, str(self.writes), 15.0)

    def release(self, version: str) -> None:
        if self.record is not None and self.record.version == version:
            self.writes += 1
            self.record = Record("", str(self.writes), 1.0)


@dataclass
class Process:
    """Its clock starts anywhere and runs at a speed of its own."""

    number: int
    start: float
    speed: float
    lives: int = 0
    state: State = field(default_factory=lambda: State(me=""))
    stopped: float = 0.0
    request: Request | None = None

    def __post_init__(self) -> None:
        self.state = State(me=f"{self.number}.{self.lives}")

    def clock(self, now: float) -> float:
        return self.start + self.speed * now

    def again(self) -> None:
        self.lives += 1
        self.request = None
        self.state = State(me=f"{self.number}.{self.lives}")


@dataclass
class World:
    processes: list[Process]
    server: Server = field(default_factory=Server)
    now: float = 0.0
    late: list[Request] = field(default_factory=list)

    def holders(self) -> list[int]:
        return [each.number for each in self.processes if lease.holds(each.state, each.clock(self.now))]

    def step(self, process: Process) -> None:
        clock = process.clock(self.now)
        if process.request is not None:
            return
        match lease.step(process.state, clock):
            case (Look() | Write()) as what:
                process.request = Request(what, process.state.me, clock)
            case Lost():
                process.again()

    def arrive(self, process: Process) -> None:
        if process.request is not None and not process.request.applied:
            self.server.apply(process.request)

    def answer(self, process: Process) -> None:
        request, clock = process.request, process.clock(self.now)
        if request is None or not request.applied:
            return
        process.request = None
        if request.refused:
            process.state = lease.doubted(process.state, clock)
        elif isinstance(request.what, Look):
            process.state = lease.saw(process.state, request.answer, clock)
        else:
            assert request.answer is not None
            process.state = lease.wrote(process.state, request.answer, request.began)

    def lose(self, process: Process) -> None:
        if process.request is not None:
            self.late.append(process.request)
            process.request = None
            process.state = lease.doubted(process.state, process.clock(self.now))

    def overtake(self, _process: Process) -> None:
        if self.late and not (request := self.late.pop()).applied:
            self.server.apply(request)

    def crash(self, process: Process) -> None:
        self.lose(process)
        process.again()

    def release(self, process: Process) -> None:
        record, held = process.state.record, process.state.held_from is not None
        process.state = replace(process.state, held_from=None)
        if held and record is not None:
            self.server.release(record.version)
        self.crash(process)

    def turn(self, process: Process) -> None:
        """All of it, as it goes as a rule."""
        for each in (self.step, self.arrive, self.answer):
            each(process)


FAULTS = ("step", "arrive", "answer", "lose", "overtake", "crash", "release")
speeds = st.floats(0.97, 1.03)
clocks_of = st.lists(st.tuples(st.floats(0.0, 1e6), speeds), min_size=2, max_size=3)
faults = st.tuples(st.integers(0, 60), st.integers(0, 2), st.sampled_from(FAULTS) | st.floats(1.0, 40.0))
"""After how many turns of all, to whom, what; a number: it is stopped for so many seconds."""


@settings(max_examples=300)
@given(clocks=clocks_of, happening=st.lists(faults, max_size=25), pause=st.sampled_from([0.11, 0.5, 1.0]))
def test_there_are_never_two_holders(
    clocks: list[tuple[float, float]], happening: list[tuple[int, int, str | float]], pause: float
) -> None:
    world = World([Process(number, start, speed) for number, (start, speed) in enumerate(clocks)])
    for turns, number, what in happening:
        for _ in range(turns):
            world.now += pause
            for each in world.processes:
                if each.stopped <= world.now:
                    world.turn(each)
                assert len(world.holders()) <= 1
        process = world.processes[number % len(world.processes)]
        if isinstance(what, float):
            process.stopped = world.now + what
        else:
            getattr(world, what)(process)
        assert len(world.holders()) <= 1


@given(clocks=clocks_of, leads=st.floats(0.0, 60.0))
def test_after_a_crash_somebody_leads_within_a_lease_and_a_look(
    clocks: list[tuple[float, float]], leads: float
) -> None:
    world = World([Process(number, start, speed) for number, (start, speed) in enumerate(clocks)])
    while world.now < 2.0 + leads:
        for each in world.processes:
            world.turn(each)
        world.now += 0.25
    (first,) = world.holders()
    dead, crashed_at = world.processes.pop(first), world.now
    world.crash(dead)
    while not (found := world.holders()):
        for each in world.processes:
            world.turn(each)
        world.now += 0.25
        assert world.now - crashed_at <= (Timing().duration + Timing().again) / 0.97 + 1.0
    assert found != [first]
