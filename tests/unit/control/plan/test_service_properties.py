"""Safety of the planner under random histories: switches, scaling, crashes, slow gateways, restarts of the server."""

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api import load
from modelyard.api.model import Model
from modelyard.api.service import ModelService
from modelyard.control.ir.actions import Action, Resize, Start, Stop
from modelyard.control.ir.observed import Observed, ObservedReplica, ObservedRoute, ObservedUnit, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Route
from modelyard.control.plan import service
from modelyard.control.plan.diff import diff
from modelyard.control.plan.rollout import KEEP_REVISIONS, ready_replicas
from modelyard.control.plan.views import Outcome, ServiceView

NAMES = ("forest", "logistic", "boosted")
READY, STARTING = ReplicaState.READY, ReplicaState.STARTING


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
class World:
    """A simulated laptop: everything that outlives a planning step."""

    model: str = NAMES[0]
    replicas: int = 1
    traffic: list[dict[str, Any]] | None = None
    status: dict[str, Any] = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    units: dict[str, list[ReplicaState]] = field(default_factory=dict)
    known: dict[str, ObservedUnit] = field(default_factory=dict)
    acknowledged: Route | None = None
    published: Route | None = None
    told: list[Route] = field(default_factory=list)
    """What the gateway was told since an answer of it is known: any of them may be in force."""
    numbers: list[int] = field(default_factory=list)

    def view(self) -> ServiceView:
        body = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "ModelService",
            "metadata": {"name": "digits", "uid": "s-1"},
            "spec": {"model": {"name": self.model}, "replicas": self.replicas, "traffic": self.traffic},
            "status": self.status,
        }
        declared = load.decode(body)
        assert isinstance(declared, ModelService)
        return ServiceView(
            service=declared,
            models=MODELS,
            revisions=tuple(self.revisions.values()),
            observed=self.observed(),
            route=ObservedRoute(acknowledged=self.acknowledged),
            in_transit=tuple(self.told),
        )

    def observed(self) -> Observed:
        def members(name: str, states: list[ReplicaState]) -> tuple[ObservedReplica, ...]:
            return tuple(ObservedReplica(name=f"{name}-{i}", state=state) for i, state in enumerate(states))

        return Observed(
            units=tuple(
                replace_unit(self.known[name], len(states), members(name, states))
                for name, states in sorted(self.units.items())
            )
        )

    def step(self) -> tuple[Outcome, tuple[Action, ...]]:
        outcome = service.desire(self.view(), 0.0)
        actions = diff(outcome.desired, self.observed())
        self.check(outcome, actions)
        for revision in outcome.desired.records:
            assert isinstance(revision, Revision)
            assert revision.name not in self.revisions
            self.revisions[revision.name] = revision
            self.numbers.append(revision.number)
        for name in outcome.desired.obsolete:
            assert name not in self.named(), "a revision that is named is kept"
            del self.revisions[name]
        assert outcome.status is not None
        self.status = outcome.status
        (self.published,) = outcome.desired.routes
        self.told = [*(each for each in self.told if each != self.published), self.published]
        for action in actions:
            self.apply(action)
        return outcome, actions

    def named(self) -> set[str]:
        return {each["revision"] for each in self.traffic or ()}

    def apply(self, action: Action) -> None:
        match action:
            case Start(unit=unit, replicas=replicas):
                self.units[unit.name] = [STARTING] * replicas
                self.known[unit.name] = ObservedUnit(unit=unit, replicas=replicas)
            case Resize(unit=name, replicas=replicas):
                states = self.units[name]
                self.units[name] = states[:replicas] + [STARTING] * (replicas - len(states))
            case Stop(unit=name):
                del self.units[name]
            case _:
                raise AssertionError(f"a service has no tasks: {action}")

    def acknowledge(self, route: Route) -> None:
        """The gateway says that this one is in force; what it was told later may follow at any moment."""
        self.acknowledged = route
        self.told = self.told[self.told.index(route) :]

    def settle(self) -> Outcome:
        for _ in range(12):
            outcome, actions = self.step()
            if not actions and not outcome.desired.records:
                return outcome
        raise AssertionError("planning what was planned keeps changing things")

    def check(self, outcome: Outcome, actions: tuple[Action, ...]) -> None:
        observed = self.observed()
        (route,) = outcome.desired.routes
        serving = {unit for r in (self.acknowledged, route, *self.told) if r for unit in r.units}
        stopped = {action.unit for action in actions if isinstance(action, Stop)}
        in_force = {b.unit for b in (self.acknowledged.backends if self.acknowledged else ())}
        if self.acknowledged is None and not route.backends and self.replicas:
            reachable = {b.unit for each in self.told for b in each.backends}
            assert not any(ready_replicas(observed, unit) for unit in reachable), "what may be serving goes on serving"
        assert not stopped & serving, "a unit that gets traffic is never stopped"
        assert sum(backend.weight for backend in route.backends) in (0, 100)
        if self.named() <= {"latest", *self.revisions}:
            self.check_readiness(route, in_force)
        elif self.acknowledged and self.acknowledged.backends and self.replicas:
            assert route.backends == self.acknowledged.backends, "what is in force stays while a revision is missing"
        if self.replicas:
            wanted = {each.unit.revision for each in outcome.desired.units}
            assert self.named() & set(self.revisions) <= wanted, "what is named runs"
        for action in actions:
            if isinstance(action, Start):
                assert action.unit.revision in self.revisions, "only what was recorded runs"

    def check_readiness(self, route: Route, in_force: set[str]) -> None:
        observed = self.observed()
        for backend in route.backends:
            ready = ready_replicas(observed, backend.unit)
            assert ready >= 1, "traffic never goes where nothing is ready"
            if self.traffic is not None and backend.unit in in_force:
                continue  # a share of its own is kept
            for old in in_force:
                assert ready >= min(self.replicas, ready_replicas(observed, old)), "nor to a less ready revision"


def replace_unit(unit: ObservedUnit, replicas: int, members: tuple[ObservedReplica, ...]) -> ObservedUnit:
    return ObservedUnit(unit=unit.unit, replicas=replicas, members=members)


@st.composite
def shares(draw: st.DrawFn) -> list[dict[str, Any]] | None:
    """Valid `spec.traffic`, of revisions that may exist."""
    names = draw(st.lists(st.sampled_from(["latest", *(f"digits-svc-0000{n}" for n in range(1, 6))]), max_size=3))
    if not names:
        return None
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1)))
    percents = [after - before for before, after in zip([0, *cuts], [*cuts, 100], strict=True)]
    splits = [{"revision": name, "percent": percent} for name, percent in zip(names, percents, strict=True)]
    extra = draw(st.sampled_from([None, {"mirror": {"percent": 50}}, {"tag": "canary"}]))
    return [*splits, {"revision": draw(st.sampled_from([*names, "digits-svc-00002"])), **extra}] if extra else splits


EVENTS = st.one_of(
    st.tuples(st.just("share"), shares()),
    st.tuples(st.just("switch"), st.sampled_from(NAMES)),
    st.tuples(st.just("scale"), st.integers(0, 3)),
    st.tuples(st.just("ready"), st.integers(0, 5)),
    st.tuples(st.just("crash"), st.integers(0, 5)),
    st.tuples(st.just("acknowledge"), st.integers(0, 3)),
    st.tuples(st.just("ask in between"), st.none()),
    st.tuples(st.just("restart"), st.booleans()),
)


def happen(world: World, kind: str, argument: Any) -> None:
    places = [(name, i) for name, states in sorted(world.units.items()) for i in range(len(states))]
    if kind == "switch":
        world.model = argument
    elif kind == "share":
        world.traffic = argument
    elif kind == "scale":
        world.replicas = argument
    elif kind in ("ready", "crash") and places:
        name, index = places[argument % len(places)]
        world.units[name][index] = READY if kind == "ready" else STARTING
    elif kind == "acknowledge" and world.told:
        world.acknowledge(world.told[argument % len(world.told)])
    elif kind == "ask in between" and world.told:
        world.acknowledged = None
    elif kind == "restart":
        world.units, world.acknowledged, world.published, world.told = {}, None, None, []
        if argument:  # the last status was not stored before the kill
            world.status = {k: v for k, v in world.status.items() if k != "latestReadyRevision"}


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_no_history_breaks_the_traffic(history: list[tuple[str, Any]]) -> None:
    world = World()
    for kind, argument in history:
        happen(world, kind, argument)
        world.settle()
        assert world.numbers == sorted(set(world.numbers)), "revision numbers only grow"
        assert len(world.revisions) <= KEEP_REVISIONS + 3


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENTS, max_size=20), st.integers(1, 3))
def test_every_history_ends_with_the_declared_spec_serving(history: list[tuple[str, Any]], replicas: int) -> None:
    world = World()
    for kind, argument in history:
        happen(world, kind, argument)
        world.settle()
    world.replicas = replicas
    world.traffic = None
    for _ in range(4):
        world.settle()
        world.units = {name: [READY for _ in states] for name, states in world.units.items()}
        world.settle()
        world.acknowledge(world.told[-1])
    outcome = world.settle()
    assert outcome.status is not None
    ready = outcome.status["conditions"][0]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "Serving")
    newest = max(world.revisions.values(), key=lambda revision: revision.number)
    assert list(world.units) == [newest.unit.name]
    assert newest.inputs["model"]["name"] == world.model


def test_scaling_and_the_timeout_make_no_revision() -> None:
    world = World()
    world.settle()
    view = world.view()
    scaled = replace(
        view,
        service=view.service.model_copy(
            update={"spec": view.service.spec.model_copy(update={"replicas": 3, "timeout": "5s"})}
        ),
    )
    assert service.desire(scaled, 0.0).desired.records == ()


@settings(max_examples=80, deadline=None)
@given(st.lists(EVENTS, max_size=20), shares())
def test_every_history_ends_with_the_declared_shares(
    history: list[tuple[str, Any]], traffic: list[dict[str, Any]] | None
) -> None:
    world = World()
    for kind, argument in history:
        happen(world, kind, argument)
        world.settle()
    world.replicas = max(1, world.replicas)
    world.traffic = traffic = traffic or [{"revision": "latest", "percent": 100}]
    for _ in range(4):
        world.settle()
        world.units = {name: [READY for _ in states] for name, states in world.units.items()}
        world.settle()
        world.acknowledge(world.told[-1])
    outcome = world.settle()
    assert outcome.status is not None
    reason = outcome.status["conditions"][0]["reason"]
    if not world.named() <= {"latest", *world.revisions}:
        assert reason == "RevisionNotFound"
        return
    assert reason == "Serving"
    newest = max(world.revisions.values(), key=lambda revision: revision.number)
    declared: dict[str, int] = {}
    for each in traffic:
        name = newest.name if each["revision"] == "latest" else each["revision"]
        declared[name] = declared.get(name, 0) + each.get("percent", 0)
    assert world.acknowledged is not None
    shared = {world.known[each.unit].unit.revision: each.weight for each in world.acknowledged.backends}
    assert shared == {name: percent for name, percent in declared.items() if percent}
    running = {world.known[unit].unit.revision for unit in world.units}
    assert running == {newest.name, *declared}, "and nothing else runs"
