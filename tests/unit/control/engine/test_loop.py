"""From what users declare to what answers, through the real loop, reflectors, queue and planners."""

import asyncio
from itertools import pairwise
from typing import Any

from engine_testing import World, digest_of, virtual
from modelyard.control.ir import names
from modelyard.control.ir.actions import Run, Start, Stop
from modelyard.control.ir.observed import Observed, ReplicaState
from modelyard.control.ir.values import Key
from modelyard.control.kube.resources import CONTROLLERREVISIONS, EVENTS, MODELS, MODELSERVICES
from modelyard.wire.report import failure

FOREST, LOGISTIC = "models/forest.onnx", "models/logistic.onnx"
READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING


async def served(world: World, **spec: Any) -> None:
    """The service digits, with the forest."""
    await world.serve("digits", FOREST, **spec)
    await world.all_goes_well()
    assert world.ready("ModelService", "digits")[0] == "True"


@virtual
async def test_an_inline_model_becomes_a_ready_service() -> None:
    world = World()
    async with world.running():
        await world.serve("digits", FOREST)
        await world.settle()
        (model,) = world.api.all(MODELS)
        owner = world.api.find(MODELSERVICES, "digits")
        assert owner is not None
        assert model["spec"] == {"uri": FOREST}
        assert model["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
        assert world.ready("ModelService", "digits")[:2] == ("False", "ModelNotReady")
        assert len(world.tasks()) == 1
        assert world.gateway.ask("digits")[0] == 503

        await world.prepares()
        assert world.ready("Model", model["metadata"]["name"])[:2] == ("True", "Prepared")
        assert world.driver.observe().tasks == (), "its result is in the status"
        assert world.revisions() == ["digits-svc-00001"]
        assert world.ready("ModelService", "digits")[:2] == ("False", "Starting")
        assert world.gateway.ask("digits")[0] == 503

        await world.loads()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")
        assert world.serving("digits") == world.serving("digits.default") == digest_of(FOREST)
        told = world.events()
        for reason in ("Prepared: ", "RevisionCreated: recorded digits-svc-00001", "Started: ", "Serving: "):
            assert [count for text, count in told.items() if text.startswith(reason)] == [1], reason


@virtual
async def test_objects_may_come_in_any_order() -> None:
    world = World()
    async with world.running():
        await world.apply("ModelService", "digits", {"model": {"name": "forest"}})
        await world.settle()
        assert world.ready("ModelService", "digits")[:2] == ("False", "ModelNotFound")
        await world.apply("Model", "forest", {"uri": FOREST})
        await world.all_goes_well()
        assert world.serving("digits") == digest_of(FOREST)


@virtual
async def test_a_switch_has_no_moment_without_a_ready_unit() -> None:
    world = World(automatic_gateway=False)
    seen: list[str] = []

    async def ask_all_the_time() -> None:
        while True:
            code, unit = world.gateway.ask("digits")
            ready = {replica.name.rpartition("-")[0] for replica in world.replicas(READY)}
            assert code == 200
            assert unit in ready
            seen.append(unit)
            await asyncio.sleep(0.001)

    async def acknowledge_late() -> None:
        while True:
            await asyncio.sleep(0.7)
            world.gateway.settle()

    async with world.running(), asyncio.TaskGroup() as group:
        acknowledging = group.create_task(acknowledge_late())
        await world.serve("digits", FOREST, replicas=2)
        for _ in range(4):
            await world.prepares()
            await world.loads()
        asking = group.create_task(ask_all_the_time())
        for uri in (LOGISTIC, FOREST, LOGISTIC):
            await world.serve("digits", uri, replicas=2)
            await world.prepares()
            for replica in world.replicas(STARTING):
                await asyncio.sleep(1)
                world.driver.make_ready(replica.name)
            await world.passes(3)
            await world.drains()
            assert world.serving("digits") == digest_of(uri)
        asking.cancel()
        acknowledging.cancel()
    switches = [(a, b) for a, b in pairwise(seen) if a != b]
    units = [f"digits-svc-0000{number}.default" for number in (1, 2, 3, 4)]
    assert switches == list(pairwise(units)), "each once, and never back"
    assert [unit.unit.name for unit in world.driver.observe().units] == units[-1:]


@virtual
async def test_a_model_that_fails_leaves_the_old_one_serving() -> None:
    world = World()
    async with world.running():
        await served(world)
        await world.serve("digits", "models/typo.onnx")
        await world.prepares(broken="nothing at models/typo.onnx", retry=False)
        status, reason, message = world.ready("ModelService", "digits")
        assert (status, reason) == ("False", "ArtifactNotFound")
        assert "nothing at models/typo.onnx" in message
        assert message.endswith("digits-svc-00001 keeps serving")
        assert world.serving("digits") == digest_of(FOREST)
        assert world.tasks() == []

        await world.serve("digits", FOREST)
        await world.all_goes_well()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")
        assert world.revisions() == ["digits-svc-00001"]


@virtual
async def test_a_revision_that_never_gets_ready_leaves_the_old_one_serving() -> None:
    world = World()
    async with world.running():
        await served(world)
        await world.serve("digits", LOGISTIC)
        await world.prepares()
        for _ in range(3):
            (replica,) = world.replicas(STARTING)
            world.driver.crash(replica.name, message="out of luck")
            await world.passes(30)
        status, reason, message = world.ready("ModelService", "digits")
        assert (status, reason) == ("False", "Crashed")
        assert "out of luck" in message
        assert world.serving("digits") == digest_of(FOREST)
        assert world.events()["Crashed: digits-svc-00002.default-0: out of luck"] == 3


@virtual
async def test_deleting_ends_everything_after_the_route_is_gone() -> None:
    world = World(automatic_gateway=False)
    async with world.running():
        await world.serve("digits", FOREST, replicas=2)
        for _ in range(4):
            await world.prepares()
            await world.loads()
            world.gateway.settle()
        await world.settle()
        assert world.serving("digits") == digest_of(FOREST)
        await world.delete("ModelService", "digits")
        await world.settle()
        assert len(world.replicas(READY)) == 2, "the gateway still sends requests"
        assert world.gateway.ask("digits")[0] == 200
        world.gateway.settle()
        await world.settle()
        assert world.gateway.ask("digits")[0] == 404
        assert len(world.replicas(DRAINING)) == 2
        await world.drains()
        assert world.driver.observe() == Observed()
        assert (world.revisions(), world.api.all(MODELS)) == ([], [])


@virtual
async def test_deleting_while_the_model_is_read_ends_the_task() -> None:
    world = World()
    async with world.running():
        await world.serve("digits", FOREST)
        await world.settle()
        assert len(world.tasks()) == 1
        await world.delete("ModelService", "digits")
        await world.settle()
        assert world.tasks() == []


@virtual
async def test_a_service_made_again_under_its_name_serves_its_own_model() -> None:
    world = World()
    async with world.running():
        for uri, name in ((FOREST, "forest"), (LOGISTIC, "logistic")):
            await world.apply("Model", name, {"uri": uri})
        await world.apply("ModelService", "digits", {"model": {"name": "forest"}})
        await world.all_goes_well()
        assert world.serving("digits") == digest_of(FOREST)
        await world.delete("ModelService", "digits")
        await world.apply("ModelService", "digits", {"model": {"name": "logistic"}})
        await world.settle()
        assert world.serving("digits") != digest_of(FOREST)
        await world.all_goes_well()
        await world.passes(60)
        await world.all_goes_well()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")
        assert world.serving("digits") == digest_of(LOGISTIC)
        assert world.revisions() == ["digits-svc-00001"]


@virtual
async def test_a_service_made_again_waits_for_the_model_of_the_earlier_one_to_go() -> None:
    world = World()
    async with world.running():
        await served(world)
        before = world.api.all(MODELS)
        await world.delete("ModelService", "digits")
        await world.serve("digits", FOREST, replicas=2)
        await asyncio.sleep(0.02)
        assert world.api.all(MODELS) == before, "not collected yet"
        await world.passes(5)
        await world.all_goes_well()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")
        assert world.api.all(MODELS)[0]["metadata"]["uid"] != before[0]["metadata"]["uid"]


@virtual
async def test_nothing_is_made_for_what_waits_for_its_dependents_to_go() -> None:
    world = World()
    async with world.running():
        await served(world)
        world.api.write_past_the_schema(
            MODELSERVICES, "digits", metadata={**_metadata(world), "deletionTimestamp": "2026-01-01T00:00:00Z"}
        )
        world.abandoned.add("digits-svc-00001.default")
        world.api.remove((CONTROLLERREVISIONS.plural, "default", "digits-svc-00001"))
        await world.settle()
        assert world.revisions() == []
        assert world.gateway.ask("digits")[0] == 404
        await world.drains()
        assert world.driver.observe().units == ()


def _metadata(world: World) -> dict[str, Any]:
    found = world.api.find(MODELSERVICES, "digits")
    assert found is not None
    metadata = found["metadata"]
    assert isinstance(metadata, dict)
    return metadata


@virtual
async def test_nothing_is_written_unless_something_changed() -> None:
    world = World()
    async with world.running() as engine:
        await served(world)
        await world.apply("Runtime", "own", {"formats": ["own"], "process": {"command": ["serve"]}})
        await world.settle()
        before, looked = world.api.version, engine.counters.reconciles
        for model in world.api.all(MODELS):  # everybody looks again
            await world.api.patch(
                MODELS, "default", model["metadata"]["name"], {"metadata": {"labels": {"looked": "again"}}}
            )
        await world.settle()
        assert engine.counters.reconciles > looked
        assert world.api.version == before + 1
        await world.passes(3600)
        assert world.api.version == before + 1


@virtual
async def test_at_rest_nobody_looks() -> None:
    world = World()
    async with world.running() as engine:
        await served(world)
        looked = engine.counters.reconciles
        await world.passes(3600)
        assert engine.counters.reconciles == looked


@virtual
async def test_an_attempt_is_made_again_when_it_is_due() -> None:
    world = World()
    async with world.running():
        await world.apply("Model", "forest", {"uri": FOREST})
        await world.settle()
        pauses = []
        for _ in range(7):
            (task,) = world.tasks()
            world.driver.finish(task, failure("DiskFull", "a full disk", retry=True))
            failed = world.clock.monotonic()
            async with asyncio.timeout(70):
                while task in [each.name for each in world.driver.observe().tasks]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            pauses.append(round(world.clock.monotonic() - failed))
            await world.settle()
        assert pauses == [2, 4, 8, 16, 32, 60, 60]
        assert world.ready("Model", "forest")[2].startswith("a full disk")
        await world.prepares()
        assert world.ready("Model", "forest")[:2] == ("True", "Prepared")
    assert len([action for action in world.driver.applied if isinstance(action, Run)]) == 8


@virtual
async def test_a_restarted_control_plane_starts_the_recorded_revision_again() -> None:
    world = World()
    async with world.running():
        await served(world, replicas=2)
        await world.serve("digits", LOGISTIC, replicas=2)
        await world.all_goes_well()
        recorded = world.revisions()
    written = [write for write in world.api.writes if write[0] != "status"]
    async with world.running(fresh=True):
        await world.settle()
        assert world.ready("ModelService", "digits")[:2] == ("False", "Starting")
        started = [action.unit.revision for action in world.driver.applied if isinstance(action, Start)]
        assert started == ["digits-svc-00002"]
        assert world.tasks() == []
        await world.loads()
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")
        assert world.serving("digits") == digest_of(LOGISTIC)
    assert world.revisions() == recorded == ["digits-svc-00001", "digits-svc-00002"]
    assert [write for write in world.api.writes if write[0] != "status"] == written


@virtual
async def test_a_control_plane_that_comes_back_takes_no_route_away() -> None:
    world = World()
    async with world.running():
        await served(world)
        await world.serve("iris", LOGISTIC)
        await world.all_goes_well()
    await world.api.delete(MODELSERVICES, "default", "iris")
    owner, iris = Key(kind="ModelService", namespace="default", name="iris"), "iris-svc-00001.default"
    world.abandoned.add(iris)
    before = len(world.driver.applied)
    async with world.running():
        for _ in range(100):
            assert world.serving("digits") == digest_of(FOREST)
            await asyncio.sleep(0.01)
        await world.settle()
        assert world.gateway.ask("iris")[0] == 404, "deleted while nobody looked"
        await world.drains()
        assert [replica.name for replica in world.replicas()] == ["digits-svc-00001.default-0"]
        assert {str(action) for action in world.driver.applied[before:]} == {str(Stop(unit=iris, owner=owner))}


@virtual
async def test_a_refreshed_model_makes_a_new_revision_only_for_new_content() -> None:
    world = World()
    async with world.running():
        await world.apply("Model", "forest", {"uri": FOREST})
        await world.apply("ModelService", "digits", {"model": {"name": "forest"}})
        await world.all_goes_well()
        await world.apply("Model", "forest", {"uri": FOREST}, annotations={names.ANNOTATION_REFRESH: "1"})
        await world.settle()
        assert len(world.tasks()) == 1
        assert world.serving("digits") == digest_of(FOREST)
        await world.all_goes_well()
        assert world.revisions() == ["digits-svc-00001"]
        assert world.ready("ModelService", "digits")[:2] == ("True", "Serving")


@virtual
async def test_scaling_changes_replicas_and_no_revision() -> None:
    world = World()
    async with world.running():
        await served(world)
        for replicas in (3, 1, 0, 2):
            await world.serve("digits", FOREST, replicas=replicas)
            await world.all_goes_well()
            assert len(world.replicas(READY)) == len(world.replicas()) == replicas
            assert world.gateway.ask("digits")[0] == (200 if replicas else 503)
            assert world.ready("ModelService", "digits")[0] == "True"
        assert world.revisions() == ["digits-svc-00001"]


@virtual
async def test_many_services_come_up_together() -> None:
    world = World()
    async with world.running() as engine:
        for index in range(50):
            await world.serve(f"s{index:02}", f"models/{index}.onnx")
        await world.all_goes_well()
        assert [world.serving(f"s{index:02}") for index in range(50)] == [
            digest_of(f"models/{index}.onnx") for index in range(50)
        ]
        assert engine.counters.failures == 0
        assert engine.counters.reconciles < 50 * 40
        assert len(world.api.all(EVENTS)) < 50 * 12
