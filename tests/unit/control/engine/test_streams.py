"""Streams from what users declare to the removal of what they left, through the real loop, queue and planners."""

from typing import Any

import pytest

from engine_streams_testing import BOOSTED, FOREST, StreamWorld, says
from engine_testing import digest_of, virtual
from modelyard.control.ir import names
from modelyard.control.ir.actions import Run, Start
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.unit import Credential
from modelyard.control.kube.resources import CONTROLLERREVISIONS, MODELS, MODELSTREAMS
from modelyard.wire.report import Failure

DRAINING, READY, STARTING = ReplicaState.DRAINING, ReplicaState.READY, ReplicaState.STARTING


@virtual
async def test_a_stream_follows_and_who_starts_later_knows_what_has_begun() -> None:
    world = StreamWorld()
    async with world.running():
        await world.follow()
        await world.settle()
        assert world.told() == ("False", "ModelNotReady")
        await world.prepares()
        assert world.told() == ("False", "Starting")
        assert [world.work(each).begun for each in world.runners("fraud", STARTING)] == [(), ()]
        await world.loads()
        first, second = world.runners()
        assert world.told() == ("False", "BrokerUnreachable"), "ready, and not connected yet"
        world.driver.report(first, says((0, None)))
        world.driver.report(second, says())
        await world.settle()
        assert world.told() == ("False", "PartitionsWaiting")
        world.driver.report(second, says((1, 120), records=20))
        await world.settle()
        assert world.told() == ("False", "PartitionsWaiting"), "where it starts is not resolved yet"
        world.driver.report(first, says((0, 100), records=10, records_per_second=3.0))
        await world.settle()
        assert world.told() == ("True", "Following")
        assert world.told("Connected") == ("True", "Connected")
        status = world.status()
        assert status["digest"] == digest_of(FOREST)
        assert (status["records"], status["lag"], status["recordsPerSecond"]) == (30, 0, 3)
        world.driver.crash(second)
        await world.passes(1)
        assert world.work(second).begun == (0, 1)
        scored, free = world.status()["partitions"]
        assert scored == {"number": 0, "committed": 100, "lag": 0, "runner": first}
        assert (free["number"], free["committed"], set(free)) == (1, 120, {"number", "committed", "freeSince"})
        assert world.status()["records"] == 30, "sums never go back"


@virtual
async def test_nothing_is_made_before_the_finalizer_is_there() -> None:
    world = StreamWorld()
    async with world.running():
        await world.follow()
        await world.prepares()
        places = [(verb, plural) for verb, plural, _ in world.api.writes]
        assert places.index(("patch", MODELSTREAMS.plural)) < places.index(("create", CONTROLLERREVISIONS.plural))
        found = world.find_stream()
        assert found is not None
        assert found["metadata"]["finalizers"] == [names.FINALIZER_CLEAN]


@virtual
async def test_finalizers_of_others_stay() -> None:
    world = StreamWorld()
    async with world.running():
        await world.apply("Model", "forest", {"uri": FOREST})
        await world.prepares()
        await world.follow(model={"name": "forest"})
        await world.settle()
        await world.api.patch(
            MODELSTREAMS,
            "default",
            "fraud",
            {"metadata": {"finalizers": ["example.org/mine", names.FINALIZER_CLEAN]}},
        )
        await world.settle()
        await world.delete("ModelStream", "fraud")
        await world.settle()
        await world.drains()
        await world.cleans()
        found = world.find_stream()
        assert found is not None
        assert found["metadata"]["finalizers"] == ["example.org/mine"]
        await world.passes(300)
        assert (world.cleaning(), world.runners("fraud", *ReplicaState)) == ([], [])


@virtual
async def test_numbers_are_written_every_two_seconds_and_states_at_once() -> None:
    world = StreamWorld()
    async with world.running():
        first, _ = await world.following()
        await world.passes(5)
        before = len(world.api.writes)
        for step in range(40):
            world.driver.report(first, says((0, 200 + step), (1, 300 + step), records=step))
            await world.passes(0.25)
        written = len(world.api.writes) - before
        assert 4 <= written <= 7, "ten seconds of numbers"
        await world.passes(3)
        assert world.status()["records"] == 39, "the last numbers are written, too"
        problem = Failure(reason="BrokerFull", message="no room", retry=True)
        world.driver.report(first, says((0, 300), (1, 400), records=50))
        await world.passes(0.1)
        world.driver.report(first, says((0, 300), (1, 400), records=51, problem=problem))
        await world.passes(0.1)
        assert world.told() == ("False", "BrokerFull")
        version = world.api.version
        await world.passes(600)
        assert world.api.version == version


@virtual
async def test_a_partition_that_moves_is_no_news_unless_nobody_takes_it() -> None:
    world = StreamWorld()
    async with world.running():
        first, second = await world.following()
        told = dict(world.events())
        world.driver.report(first, says((0, 100)))
        await world.passes(2)
        assert world.told() == ("True", "Following")
        assert "freeSince" in world.status()["partitions"][1]
        world.driver.report(second, says((1, 120)))
        await world.passes(10)
        assert world.told() == ("True", "Following")
        assert world.events() == told
        world.driver.report(second, says())
        await world.passes(4)
        assert world.told() == ("True", "Following")
        await world.passes(2)
        assert world.told() == ("False", "PartitionsWaiting")


@virtual
async def test_a_new_model_stands_by_before_the_old_one_ends() -> None:
    world = StreamWorld()
    async with world.running():
        old = await world.following()
        await world.follow(model={"uri": BOOSTED})
        await world.prepares()
        assert world.told() == ("False", "Starting")
        new = world.runners("fraud", STARTING)
        assert len(new) == 2
        assert world.runners() == old
        assert world.work(new[0]).begun == (0, 1)
        world.driver.report(new[0], says())
        await world.settle()
        assert set(old) < set(world.runners()), "one of two is fewer than score now"
        world.driver.report(new[1], says())
        await world.settle()
        assert world.runners("fraud", DRAINING) == old
        assert world.told() == ("False", "Progressing")
        assert world.status()["latestReadyRevision"] == "fraud-stream-00002"
        world.driver.report(old[0], says())
        world.driver.report(new[0], says((0, 130), (1, 140)))
        await world.settle()
        assert world.told() == ("True", "Following")
        await world.drains()
        assert world.runners("fraud", *ReplicaState) == new
        assert world.status()["digest"] == digest_of(BOOSTED)


@virtual
async def test_a_model_that_does_not_load_changes_nothing() -> None:
    world = StreamWorld()
    async with world.running():
        old = await world.following()
        await world.follow(model={"uri": BOOSTED})
        await world.prepares()
        for _ in range(4):
            for runner in world.runners("fraud", STARTING):
                world.driver.crash(runner, "LoadFailed", "boom")
            await world.passes(20)
            assert world.told() == ("False", "LoadFailed")
        assert world.runners() == old
        await world.follow()
        await world.settle()
        assert world.revisions()[-1] == "fraud-stream-00003"
        await world.loads()
        await world.drains()
        assert [each.rpartition(".")[0] for each in world.runners()] == ["fraud-stream-00003"] * 2


@pytest.mark.parametrize("spec", [{"suspend": True}, {"replicas": 0}], ids=["suspend", "replicas: 0"])
@virtual
async def test_a_paused_stream_goes_on_where_it_was(spec: dict[str, Any]) -> None:
    world = StreamWorld()
    async with world.running():
        await world.following()
        await world.follow(**spec)
        await world.settle()
        assert world.told("Suspended")[0] == "True"
        await world.drains()
        assert world.runners("fraud", *ReplicaState) == []
        assert [each["committed"] for each in world.status()["partitions"]] == [100, 120]
        await world.follow()
        await world.passes(2)
        assert [world.work(each).begun for each in world.runners("fraud", STARTING)] == [(0, 1)] * 2
        await world.loads()
        world.driver.report(world.runners()[0], says((0, 150), (1, 150)))
        await world.settle()
        assert world.told("Suspended") == ("False", "NotSuspended")


@virtual
async def test_a_server_that_starts_again_knows_what_has_begun() -> None:
    world = StreamWorld()
    async with world.running():
        await world.following()
    async with world.running(fresh=True):
        await world.settle()
        runners = world.runners("fraud", STARTING)
        assert [world.work(each).begun for each in runners] == [(0, 1)] * 2
        starts = [each for each in world.driver.applied if isinstance(each, Start)]
        assert [each.begun for each in starts] == [(0, 1)]


@virtual
async def test_a_deleted_stream_is_cleaned_when_its_runners_have_ended() -> None:
    world = StreamWorld()
    async with world.running():
        await world.following()
        await world.delete("ModelStream", "fraud")
        await world.settle()
        assert len(world.runners("fraud", DRAINING)) == 2
        assert world.cleaning() == []
        await world.drains()
        (task,) = [each.task for each in world.driver.applied if isinstance(each, Run) and each.task.work.clean]
        assert task.work.clean is not None
        assert task.work.clean.stream.name == "default.fraud"
        assert task.credentials == (Credential(role="source", secret="nats"),)
        assert world.told("Cleaned") == ("False", "Cleaning")
        await world.cleans()
        assert world.find_stream() is None
        assert world.count("Cleaned") == 1
        await world.settle()
        assert (world.driver.observe().tasks, world.api.all(CONTROLLERREVISIONS), world.api.all(MODELS)) == ((), [], [])


@virtual
async def test_cleaning_is_tried_again_and_given_up_in_the_end() -> None:
    world = StreamWorld()
    async with world.running():
        await world.following()
        await world.delete("ModelStream", "fraud")
        await world.settle()
        await world.drains()
        began, attempts = world.clock.monotonic(), 0
        while world.find_stream() is not None and world.clock.monotonic() - began < 400:
            if world.cleaning():
                attempts += 1
                await world.cleans("nats://nats:4222 does not answer")
                if world.find_stream() is not None:
                    assert world.told("Cleaned") == ("False", "BrokerUnreachable")
            await world.passes(0.5)
        assert 4 <= attempts <= 8
        assert 100 < world.clock.monotonic() - began < 200
        assert world.count("CleanFailed") == 1
        await world.settle()
        assert world.driver.observe().tasks == ()
        await world.following()
        assert world.revisions() == ["fraud-stream-00001"], "the name is free again"


@virtual
async def test_a_stream_that_never_ran_just_goes() -> None:
    world = StreamWorld()
    async with world.running():
        await world.follow(model={"name": "missing"})
        await world.settle()
        assert world.told() == ("False", "ModelNotFound")
        await world.delete("ModelStream", "fraud")
        await world.settle()
        assert world.find_stream() is None
        assert world.cleaning() == []


@virtual
async def test_a_stream_that_cannot_be_read_is_left_alone_and_can_be_deleted() -> None:
    world = StreamWorld()
    async with world.running():
        runners = await world.following()
        world.api.write_past_the_schema(MODELSTREAMS, "fraud", spec={"model": 7})
        await world.settle()
        assert world.told() == ("False", "Invalid")
        assert world.runners() == runners
        await world.delete("ModelStream", "fraud")
        await world.settle()
        await world.drains()
        await world.cleans()
        assert world.find_stream() is None


@virtual
async def test_a_write_that_fails_is_made_up_for() -> None:
    world = StreamWorld()
    async with world.running():
        first, _ = await world.following()
        refusals = 3

        def refuse(verb: str, _path: str) -> None:
            nonlocal refusals
            if verb != "GET" and refusals:
                refusals -= 1
                raise ConnectionError("away")

        world.api.refuse = refuse
        world.driver.report(first, says((0, 200), (1, 220), problem=Failure(reason="BrokerFull", message="full")))
        await world.passes(10)
        assert world.told() == ("False", "BrokerFull")
        assert [each["committed"] for each in world.status()["partitions"]] == [200, 220]
