"""What goes wrong around the loop: it says so, goes on with everything else, and never spins."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from engine_testing import World, digest_of, virtual
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.ir.actions import Action, Start
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import ApiError
from modelyard.control.kube.resources import CONTROLLERREVISIONS, MODELSERVICES
from modelyard.control.plan import service
from modelyard.control.plan.views import Outcome, ServiceView

FOREST, LOGISTIC = "models/forest.onnx", "models/logistic.onnx"
Planner = Callable[[ServiceView, float], Outcome]


async def served(world: World, *names: str) -> None:
    for name in names:
        await world.serve(name, FOREST)
    await world.all_goes_well()
    for name in names:
        assert world.serving(name) == digest_of(FOREST)


def failing(when: str) -> Planner:
    """A planner with a defect that one service meets."""
    right = service.desire

    def desire(view: ServiceView, now: float) -> Outcome:
        if view.service.metadata.name == when:
            raise KeyError("a defect")
        return right(view, now)

    return desire


@virtual
async def test_a_defect_is_said_and_stops_nothing(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    world = World()
    async with world.running() as engine:
        await served(world, "broken", "fine")
        with monkeypatch.context() as patched:
            patched.setattr(service, "desire", failing("broken"))
            await world.serve("broken", LOGISTIC)
            await world.serve("fine", LOGISTIC)
            await world.all_goes_well()
            assert world.serving("fine") == digest_of(LOGISTIC)
            assert world.serving("broken") == digest_of(FOREST), "what ran goes on"
            status, reason, message = world.ready("ModelService", "broken")
            assert (status, reason) == ("False", "InternalError")
            assert "KeyError('a defect'); the server's log has the details" in message
            assert "a defect of Modelyard" in caplog.text
            assert "Traceback" in caplog.text
            version, failures = world.api.version, engine.counters.failures
            await world.passes(600)
            assert world.api.version == version
            assert 8 <= engine.counters.failures - failures <= 12, "once a minute"
        await world.passes(70)
        await world.all_goes_well()
        assert world.serving("broken") == digest_of(LOGISTIC)
        assert world.ready("ModelService", "broken")[:2] == ("True", "Serving")


@virtual
async def test_a_defect_at_the_start_keeps_no_other_route_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.running():
        await served(world, "broken", "fine")
    monkeypatch.setattr(service, "desire", failing("broken"))
    async with world.running():
        await world.settle()
        await world.serve("fine", LOGISTIC)
        await world.all_goes_well()
        assert world.serving("fine") == digest_of(LOGISTIC)
        assert world.serving("broken") == digest_of(FOREST), "the gateway keeps what it had"
    async with world.running(fresh=True):
        await world.all_goes_well()
        assert world.serving("fine") == digest_of(LOGISTIC)
        assert world.gateway.ask("broken")[0] == 404


@virtual
async def test_an_object_past_the_schema_is_said_and_left_alone() -> None:
    world = World()
    async with world.running():
        await served(world, "digits")
        before = world.api.find(MODELSERVICES, "digits")
        assert before is not None
        world.api.write_past_the_schema(MODELSERVICES, "digits", spec={"model": {}, "replicas": "many"})
        await world.settle()
        status, reason, message = world.ready("ModelService", "digits")
        assert (status, reason) == ("False", "Invalid")
        assert "spec.replicas" in message
        assert world.serving("digits") == digest_of(FOREST)
        stored = world.api.find(MODELSERVICES, "digits")
        assert stored is not None
        assert stored["status"]["latestReadyRevision"] == "digits-svc-00001"
        version = world.api.version
        world.driver.crash("digits-svc-00001.default-0")
        await world.passes(60)
        await world.loads()
        assert world.serving("digits") == digest_of(FOREST)
        assert world.api.version - version < 5
        world.api.write_past_the_schema(MODELSERVICES, "digits", spec=before["spec"])
        await world.all_goes_well()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")


@pytest.mark.parametrize("status", [None, "odd", {"conditions": 5}, {"conditions": [5, {"type": "Ready"}]}])
@virtual
async def test_an_object_with_an_odd_status_gets_a_right_one(status: Any) -> None:
    world = World()
    async with world.running():
        await world.serve("digits", FOREST)
        await world.settle()
        world.api.write_past_the_schema(MODELSERVICES, "digits", status=status, spec={"replicas": "many"})
        await world.settle()
        assert world.ready("ModelService", "digits")[:2] == ("False", "Invalid")


@pytest.mark.parametrize(
    "refusal",
    [RetryLater("away"), ApiError(409, "Conflict", "changed"), ApiError(500, "", "etcd"), ApiError(403, "", "no")],
    ids=str,
)
@virtual
async def test_a_write_that_is_refused_is_made_again(refusal: Exception) -> None:
    world = World()
    refused: list[str] = []

    def refuse(verb: str, path: str) -> None:
        if verb != "GET" and len(refused) % 3 < 2 and len(refused) < 30:
            refused.append(path)
            raise refusal
        refused.append(path)

    async with world.running() as engine:
        await world.serve("digits", FOREST)
        world.api.refuse = refuse
        for _ in range(10):
            await world.passes(30)
            await world.prepares()
            await world.loads()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")
        assert world.serving("digits") == digest_of(FOREST)
        assert world.revisions() == ["digits-svc-00001"]
        assert engine.counters.failures > 5


@virtual
async def test_an_api_that_is_away_is_asked_ever_more_rarely_and_traffic_goes_on() -> None:
    world = World()
    async with world.running() as engine:
        await served(world, "digits", "iris")

        def refuse(_verb: str, _path: str) -> None:
            asked.append(_path)
            raise RetryLater("away")

        asked: list[str] = []
        await world.serve("digits", LOGISTIC)
        world.api.refuse = refuse
        before = engine.counters.reconciles
        await world.passes(600)
        assert world.serving("digits") == digest_of(FOREST)
        assert engine.counters.reconciles - before < 40
        assert len(asked) < 60
        world.driver.crash("iris-svc-00001.default-0")
        await world.passes(2)
        await world.loads()
        assert world.serving("iris") == digest_of(FOREST), "processes need no API server"
        world.api.refuse = lambda _verb, _path: None
        await world.passes(70)
        await world.all_goes_well()
        assert world.serving("digits") == digest_of(LOGISTIC)


@virtual
async def test_a_driver_that_refuses_one_action_is_told_and_does_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    async with world.running() as engine:
        await served(world, "digits")
        right = world.driver.apply

        async def apply(action: Action) -> None:
            if isinstance(action, Start):
                raise UserError("this place starts nothing")
            await right(action)

        monkeypatch.setattr(world.driver, "apply", apply)
        await world.serve("digits", LOGISTIC)
        await world.prepares()
        await world.passes(300)
        assert world.ready("ModelService", "digits")[:2] == ("False", "Starting"), "the status is written all the same"
        assert world.events()["InternalError: this place starts nothing"] > 3
        assert engine.counters.failures < 20
        monkeypatch.undo()
        await world.passes(70)
        await world.all_goes_well()
        assert world.serving("digits") == digest_of(LOGISTIC)


@pytest.mark.parametrize("failure", [RetryLater("the proxy restarts"), ValueError("a defect")], ids=str)
@virtual
async def test_a_gateway_that_cannot_be_told_is_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    caplog.set_level(logging.WARNING)
    world = World()
    told: list[float] = []

    async def publish(*_: Any) -> None:
        told.append(asyncio.get_running_loop().time())
        raise failure

    async with world.running():
        with monkeypatch.context() as patched:
            patched.setattr(world.gateway, "publish", publish)
            await world.serve("digits", FOREST)
            await world.all_goes_well()
            await world.passes(60)
            assert world.ready("ModelService", "digits")[:2] == ("False", "WaitingForGateway")
        assert len(told) >= 60
        assert min(later - earlier for earlier, later in itertools.pairwise(told)) > 0.99
        assert str(failure) in caplog.text
        await world.passes(2)
        await world.settle()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")


@virtual
async def test_a_route_that_is_rejected_is_said_and_the_old_one_stays() -> None:
    world = World()
    async with world.running():
        await served(world, "digits")
        world.gateway._refuses = lambda route: "cluster name is odd" if "svc-00002" in str(route.backends) else ""
        await world.serve("digits", LOGISTIC)
        await world.all_goes_well()
        status, reason, message = world.ready("ModelService", "digits")
        assert (status, reason) == ("False", "RouteRejected")
        assert "cluster name is odd" in message
        assert world.serving("digits") == digest_of(FOREST)


@virtual
async def test_a_revision_of_another_program_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with world.running():
        body = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {"x": 1}, "revision": 1}
        await world.api.create(CONTROLLERREVISIONS, {**body, "metadata": {"name": "odd", "namespace": "default"}})
        await served(world, "digits")
        assert "ControllerRevision default/odd was not written by this release" in caplog.text


@virtual
async def test_leftovers_of_objects_that_went_while_nobody_looked_are_ended() -> None:
    world = World()
    async with world.running():
        await served(world, "digits")
        await world.apply("Model", "slow", {"uri": "models/slow.onnx"})
        await world.settle()
        assert len(world.tasks()) == 1
    for kind, name in (("ModelService", "digits"), ("Model", "slow")):
        await world.delete(kind, name)
    async with world.running():
        await world.settle()
        assert world.tasks() == []
        assert world.replicas(ReplicaState.READY) == []
        assert world.gateway.observe(Key(kind="ModelService", namespace="default", name="digits")).acknowledged is None


@virtual
async def test_a_control_plane_ends_at_once_and_leaves_nothing_behind() -> None:
    world = World()
    others = asyncio.all_tasks()
    async with world.running():
        await world.serve("digits", FOREST)
        await asyncio.sleep(0.0015)  # in the middle of a write
    assert asyncio.all_tasks() == others
