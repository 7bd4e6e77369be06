"""Safety of streams' planner under random histories: switches, scaling, crashes, partitions that move, lost writes."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import KINDS
from modelyard.api import load
from modelyard.api.model import Model
from modelyard.api.stream import ModelStream
from modelyard.control.apiserver.admission import admit
from modelyard.control.ir import names
from modelyard.control.ir.actions import Action, Resize, Start, Stop
from modelyard.control.ir.observed import Observed, ObservedReplica, ObservedUnit, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import Unit
from modelyard.control.plan import stream
from modelyard.control.plan.diff import diff
from modelyard.control.plan.rollout import KEEP_REVISIONS, ready_replicas
from modelyard.control.plan.views import Outcome, StreamView
from modelyard.wire.report import Failure, PartitionReport, Report, StreamReport

Object = dict[str, Any]
KIND = KINDS["ModelStream"]
NAMES = ("forest", "logistic", "boosted")
PARTITIONS = 3
READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING
SUMS = ("records", "deadLetters", "expired")


def _model(name: str) -> Model:
    body = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "uid": f"m-{name}"},
        "spec": {"uri": f"{name}.onnx"},
        "status": {"digest": "sha256:" + format(NAMES.index(name), "x") * 64, "format": "onnx"},
    }
    found = load.decode(body)
    assert isinstance(found, Model)
    return found


MODELS = tuple(_model(name) for name in NAMES)


@dataclass
class Runner:
    """A process. held: partitions that it scores; counted: records since it started."""

    state: ReplicaState = STARTING
    held: set[int] = field(default_factory=set)
    counted: int = 0
    started_at: float = 0.0
    told: bool = False
    problem: bool = False


@dataclass
class Running:
    unit: Unit
    replicas: int
    begun: tuple[int, ...]
    members: dict[int, Runner] = field(default_factory=dict)


@dataclass
class World:
    """A simulated laptop and broker: everything that outlives a planning step."""

    delivery: str = "exactlyOnce"
    model: str = NAMES[0]
    replicas: int = 2
    suspend: bool = False
    now: float = 1_800_000_000.25
    status: Object = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    units: dict[str, Running] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    lost: int = 0

    def body(self) -> Object:
        sides = {"uri": "nats://nats:4222"}
        return {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "ModelStream",
            "metadata": {
                "name": "fraud",
                "namespace": "default",
                "uid": "s-1",
                "generation": 1,
                "finalizers": [names.FINALIZER_CLEAN],
            },
            "spec": {
                "model": {"name": self.model},
                "source": {**sides, "stream": "in", "subjects": ["in.*.>"]},
                "sink": {**sides, "stream": "out", "subject": "out"},
                "delivery": self.delivery,
                "partitions": PARTITIONS,
                "key": {"token": 2},
                "replicas": self.replicas,
                "suspend": self.suspend,
            },
            "status": self.status,
        }

    def view(self) -> StreamView:
        declared = load.decode(self.body())
        assert isinstance(declared, ModelStream)
        recorded = tuple(self.revisions.values())
        return StreamView(stream=declared, models=MODELS, revisions=recorded, observed=self.observed())

    def observed(self) -> Observed:
        return Observed(units=tuple(self._unit(name) for name in sorted(self.units)))

    def _unit(self, name: str) -> ObservedUnit:
        running = self.units[name]
        members = tuple(
            ObservedReplica(
                name=f"{name}-{number}",
                state=each.state,
                started_at=each.started_at,
                report=Report(stream=self._report(each)) if each.told else None,
            )
            for number, each in sorted(running.members.items())
        )
        return ObservedUnit(unit=running.unit, replicas=running.replicas, begun=running.begun, members=members)

    def _report(self, runner: Runner) -> StreamReport:
        fenced = self.delivery == "exactlyOnce"
        return StreamReport(
            ready=runner.state is READY,
            connected=True,
            partitions=tuple(
                PartitionReport(number=number, committed=self.offsets.get(number), lag=1)
                for number in sorted(runner.held)
            ),
            records=sum(self.offsets.get(each, 0) for each in runner.held) if fenced else runner.counted,
            problem=Failure(reason="BrokerFull", message="full") if runner.problem else None,
        )

    def step(self) -> tuple[Outcome, tuple[Action, ...]]:
        outcome = stream.desire(self.view(), self.now)
        actions = diff(outcome.desired, self.observed())
        self.check(outcome, actions)
        for revision in outcome.desired.records:
            assert isinstance(revision, Revision)
            assert revision.name not in self.revisions
            self.revisions[revision.name] = revision
        for name in outcome.desired.obsolete:
            del self.revisions[name]
        for action in actions:
            self.apply(action)
        assert outcome.status is not None
        if self.lost:
            self.lost -= 1
        else:
            self.status = outcome.status
        return outcome, actions

    def apply(self, action: Action) -> None:
        match action:
            case Start(unit=unit, replicas=replicas, begun=begun):
                self.units[unit.name] = Running(unit=unit, replicas=replicas, begun=begun)
                self._staff(unit.name)
            case Resize(unit=name, replicas=replicas, begun=begun):
                self.units[name].replicas, self.units[name].begun = replicas, begun
                self._staff(name)
            case Stop(unit=name):
                self.units[name].replicas = 0
                self._staff(name)
            case _:
                raise AssertionError(f"a stream that is not deleted has no tasks: {action}")

    def _staff(self, name: str) -> None:
        running = self.units[name]
        staying = [number for number, each in sorted(running.members.items()) if each.state is not DRAINING]
        for number in staying[running.replicas :]:
            if running.members[number].state is READY:
                running.members[number].state = DRAINING
            else:
                del running.members[number]
        free = (number for number in range(20) if number not in running.members)
        for number, _ in zip(free, range(running.replicas - len(staying)), strict=False):
            self.now += 0.001
            running.members[number] = Runner(started_at=self.now)
        if not running.members and not running.replicas:
            del self.units[name]

    def runners(self, *states: ReplicaState) -> list[tuple[str, int, Runner]]:
        return [
            (name, number, each)
            for name, running in sorted(self.units.items())
            for number, each in sorted(running.members.items())
            if each.state in states
        ]

    def claim(self) -> None:
        """Ready runners take what is free."""
        held = {number for _, _, each in self.runners(READY, DRAINING) for number in each.held}
        ready = [each for _, _, each in self.runners(READY)]
        for place, number in enumerate(sorted(set(range(PARTITIONS)) - held)):
            if ready:
                ready[place % len(ready)].held.add(number)

    def score(self, amount: int) -> None:
        for _, _, each in self.runners(READY, DRAINING):
            each.told = True
            for number in each.held:
                self.offsets[number] = self.offsets.get(number, 0) + amount
                each.counted += amount

    def drain(self) -> None:
        for name, number, _ in self.runners(DRAINING):
            del self.units[name].members[number]
        for name in [name for name, each in self.units.items() if not each.members and not each.replicas]:
            del self.units[name]

    def settle(self) -> Outcome:
        for _ in range(12):
            going = {name for name, each in self.units.items() if not each.replicas}
            outcome, actions = self.step()
            news = [each for each in actions if not (isinstance(each, Stop) and each.unit in going)]
            if not news and not outcome.desired.records and self.status == outcome.status:
                self.check_stored()
                return outcome
        raise AssertionError("planning what was planned keeps changing things")

    def check(self, outcome: Outcome, actions: tuple[Action, ...]) -> None:
        observed = self.observed()
        assert outcome.status is not None
        wanted = {each.unit.name: each for each in outcome.desired.units}
        for action in actions:
            if isinstance(action, Start):
                assert action.unit.revision in self.revisions, "only what was recorded runs"
            if isinstance(action, Stop) and self.replicas and not self.suspend:
                ready = ready_replicas(observed, action.unit)
                others = max((ready_replicas(observed, name) for name in wanted), default=0)
                assert others >= min(self.replicas, ready), "somebody stands by for whoever ends"
        self._check_status(outcome.status)
        begun = {number for each in outcome.desired.units for number in each.begun}
        known = {each["number"] for each in self.status.get("partitions", ()) if "committed" in each}
        assert not outcome.desired.units or known <= begun, "what has begun is told to whoever starts"

    def _was_ready(self) -> bool:
        return any((each["type"], each["status"]) == ("Ready", "True") for each in self.status["conditions"])

    def check_stored(self) -> None:
        """An API server takes the status."""
        admit(KIND, {**STORED, "status": self.status}, STORED, subresource="status")

    def _check_status(self, status: Object) -> None:
        before = {each["number"]: each for each in self.status.get("partitions", ()) if "committed" in each}
        after = {each["number"]: each for each in status.get("partitions", ())}
        for number, each in before.items():
            assert after[number]["committed"] >= each["committed"], "positions never go back"
        for name in SUMS:
            assert status.get(name, 0) >= self.status.get(name, 0), "sums never go back"
        if self.delivery == "exactlyOnce":
            assert status.get("records", 0) <= sum(self.offsets.values()), "nothing is counted twice"
        (ready,) = [each for each in status["conditions"] if each["type"] == "Ready"]
        if ready["status"] == "True":
            # One that is asked to end scores on until it has given up what it holds.
            held = {number for _, _, each in self.runners(READY, DRAINING) if each.told for number in each.held}
            moves = {each["number"] for each in status["partitions"] if "freeSince" in each}
            assert not moves or self._was_ready(), "what moves keeps Ready, and does not bring it about"
            assert held | moves == set(range(PARTITIONS)), "Ready means that every partition is scored"


STORED = admit(KIND, World().body(), None)[0]
EVENTS = st.one_of(
    st.tuples(st.just("switch"), st.sampled_from(NAMES)),
    st.tuples(st.just("scale"), st.integers(0, 3)),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("ready"), st.integers(0, 5)),
    st.tuples(st.just("ready"), st.integers(0, 5)),
    st.tuples(st.just("crash"), st.integers(0, 5)),
    st.tuples(st.just("claim"), st.none()),
    st.tuples(st.just("both"), st.integers(0, 5)),
    st.tuples(st.just("problem"), st.integers(0, 5)),
    st.tuples(st.just("score"), st.integers(1, 100)),
    st.tuples(st.just("drain"), st.none()),
    st.tuples(st.just("lose"), st.integers(1, 3)),
    st.tuples(st.just("release"), st.integers(0, 5)),
    st.tuples(st.just("time"), st.sampled_from([1.0, 6.0])),
    st.tuples(st.just("restart"), st.none()),
)


def happen(world: World, kind: str, argument: Any) -> None:
    if kind == "switch":
        world.model = argument
    elif kind == "scale":
        world.replicas = argument
    elif kind == "suspend":
        world.suspend = argument
    elif kind == "claim":
        world.claim()
    elif kind == "score":
        world.score(argument)
    elif kind == "drain":
        world.drain()
    elif kind == "lose":
        world.lost = argument
    elif kind == "time":
        world.now += argument
    elif kind == "restart":
        world.units, world.lost = {}, 0
    else:
        _process(world, kind, argument)


def _process(world: World, kind: str, argument: int) -> None:
    found = world.runners(STARTING) if kind == "ready" else world.runners(READY)
    if not found:
        return
    _, _, runner = found[argument % len(found)]
    if kind == "ready":
        runner.state, runner.told = READY, True
    elif kind == "crash":
        world.now += 0.001
        runner.state, runner.held, runner.counted = STARTING, set(), 0
        runner.told, runner.problem, runner.started_at = False, False, world.now
    elif kind == "problem":
        runner.problem = not runner.problem
    elif kind == "release":
        runner.held = set(sorted(runner.held)[1:])
    else:
        runner.held.add(argument % PARTITIONS)  # while it moves two tell of it


HISTORIES = st.lists(EVENTS, max_size=25)
DELIVERIES = st.sampled_from(["exactlyOnce", "atLeastOnce"])


@settings(max_examples=100, deadline=None)
@given(HISTORIES, DELIVERIES)
def test_no_history_breaks_a_stream(history: list[tuple[str, Any]], delivery: str) -> None:
    world = World(delivery=delivery)
    for kind, argument in history:
        happen(world, kind, argument)
        world.settle()
        assert len(world.revisions) <= KEEP_REVISIONS + 3


@settings(max_examples=50, deadline=None)
@given(HISTORIES, DELIVERIES, st.integers(1, 3))
def test_every_history_ends_with_the_declared_spec_following(
    history: list[tuple[str, Any]], delivery: str, replicas: int
) -> None:
    world = World(delivery=delivery)
    for kind, argument in history:
        happen(world, kind, argument)
        world.settle()
    world.replicas, world.suspend, world.lost = replicas, False, 0
    for _ in range(4):
        world.settle()
        for _, _, each in world.runners(STARTING):
            each.state, each.told = READY, True
        for _, _, each in world.runners(READY):
            each.problem = False
        world.settle()
        world.drain()
        world.claim()
        world.score(1)
    outcome = world.settle()
    assert outcome.status is not None
    assert not [each for each in outcome.status["partitions"] if "freeSince" in each]
    ready = outcome.status["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "Following"), ready["message"]
    newest = max(world.revisions.values(), key=lambda revision: revision.number)
    assert list(world.units) == [newest.unit.name]
    assert newest.inputs["model"]["name"] == world.model


@given(HISTORIES)
def test_what_is_not_lost_at_least_once_is_counted(history: list[tuple[str, Any]]) -> None:
    """As long as every report is looked at before the next one, the sum is what all processes have scored."""
    world, scored = World(delivery="atLeastOnce"), 0
    for kind, argument in history:
        if kind in ("lose", "restart"):
            continue
        before = sum(each.counted for _, _, each in world.runners(*ReplicaState))
        happen(world, kind, argument)
        if kind == "score":
            scored += sum(each.counted for _, _, each in world.runners(*ReplicaState)) - before
        world.settle()
    assert world.status.get("records", 0) == scored
