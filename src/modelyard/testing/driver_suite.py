"""What every Driver does. Derive a test class and give it a fixture `rig`; pytest-asyncio runs it."""

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.ir.actions import Action, Resize, Run, Start, Stop
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.unit import Resources, SecretKey, Variable
from modelyard.testing.driver_rig import (
    GIB,
    IRIS,
    MODEL,
    ROSE,
    SECRET,
    Rig,
    ended,
    found,
    hinted,
    members,
    message,
    ready,
    refused,
    states,
    task,
    troubled,
    unit,
    until,
)
from modelyard.testing.gang_suite import GangSuite, PrioritySuite
from modelyard.testing.streams_suite import StreamsSuite
from modelyard.testing.tasks_suite import MembersSuite, TasksSuite
from modelyard.wire.report import ShadowReport


class UnitsSuite:
    """Units: started, resized, drained and forgotten."""

    async def test_a_started_unit_gets_ready_with_an_address_for_each_replica(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=2))
        first, second = await ready(rig, iris.name, 2)
        assert "" not in (first.address, second.address)
        assert first.address != second.address
        assert 0 < first.started_at <= rig.clock.now()
        assert (first.trouble, first.restarts) == (None, 0)

    async def test_replicas_are_processes_that_are_named_by_ordinal(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=2))
        first, second = await ready(rig, iris.name, 2)
        assert (first.name, second.name) == (f"{iris.name}-0", f"{iris.name}-1")
        assert first.address.startswith("unix:/")
        assert 0 < first.pid != second.pid > 0

    async def test_starting_what_runs_changes_nothing(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=1))
        before = await ready(rig, iris.name)
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await rig.step()
        assert members(rig, iris.name) == before

    async def test_a_name_belongs_to_one_content(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await ready(rig, iris.name)
        said = await refused(rig, Start(unit=unit(drain_seconds=1.0), replicas=1), UserError)
        assert iris.name in said
        assert len(members(rig, iris.name)) == 1

    async def test_what_cannot_be_a_unit_is_refused(self, rig: Rig) -> None:
        await refused(rig, Start(unit=unit("../../etc/passwd"), replicas=1), UserError)
        await refused(rig, Start(unit=unit(), replicas=-1), UserError)
        await refused(rig, Run(task=task("a/b")), UserError)
        assert rig.driver.observe().units == ()

    async def test_observations_can_be_of_one_owner(self, rig: Rig) -> None:
        await rig.driver.apply(Start(unit=unit(), replicas=1))
        await rig.driver.apply(Start(unit=unit("rose-svc-00001.default", ROSE), replicas=1))
        await rig.driver.apply(Run(task=task()))
        assert [each.unit.owner for each in rig.driver.observe(ROSE).units] == [ROSE]
        assert rig.driver.observe(ROSE).tasks == ()
        assert [each.unit.owner for each in rig.driver.observe().units] == [IRIS, ROSE]

    async def test_a_unit_grows_and_shrinks_from_the_highest_ordinal(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=1))
        (kept,) = await ready(rig, iris.name)
        await rig.driver.apply(Resize(unit=iris.name, owner=IRIS, replicas=3))
        await ready(rig, iris.name, 3)
        await rig.driver.apply(Resize(unit=iris.name, owner=IRIS, replicas=1))
        assert states(rig, iris.name) == [ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.DRAINING]
        assert (await ready(rig, iris.name))[0].pid == kept.pid

    async def test_resizing_a_unit_that_is_not_there_may_work_later(self, rig: Rig) -> None:
        await refused(rig, Resize(unit="gone.default", owner=IRIS, replicas=1), RetryLater)

    async def test_only_its_owner_changes_a_unit(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await refused(rig, Resize(unit=iris.name, owner=ROSE, replicas=0), UserError)
        await refused(rig, Stop(unit=iris.name, owner=ROSE), UserError)
        await ready(rig, iris.name)

    async def test_what_came_of_copies_of_requests_is_told_to_the_owner(self, rig: Rig) -> None:
        iris = unit(lever="copies")
        await rig.driver.apply(Start(unit=iris, replicas=1))
        (first,) = await ready(rig, iris.name)
        assert first.report is None
        async with hinted(rig) as keys:
            await rig.step()
            keys.clear()
            await until(rig, lambda: members(rig, iris.name)[0].report is not None, "a report")
            await until(rig, lambda: keys == [IRIS] * len(keys) != [], "a hint for the owner")
        report = members(rig, iris.name)[0].report
        assert report is not None
        assert report.serve is not None
        assert report.serve.shadow == ShadowReport(compared=7)
        rig.kill(first)
        await until(rig, lambda: members(rig, iris.name)[0].pid != first.pid, "its process has ended")
        assert members(rig, iris.name)[0].report is None

    async def test_a_leaving_replica_finishes_its_requests(self, rig: Rig) -> None:
        iris = unit(lever="drain=0.5")
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await ready(rig, iris.name)
        began = rig.clock.monotonic()
        await rig.driver.apply(Resize(unit=iris.name, owner=IRIS, replicas=0))
        await until(rig, lambda: states(rig, iris.name) == [ReplicaState.DRAINING], "it drains")
        assert members(rig, iris.name)[0].address == ""
        await until(rig, lambda: members(rig, iris.name) == (), "the replica has left")
        assert rig.clock.monotonic() - began >= 0.5
        each = found(rig, iris.name)
        assert each is not None
        assert each.replicas == 0

    async def test_a_drain_has_an_end(self, rig: Rig) -> None:
        iris = unit(lever="stubborn", drain_seconds=0.6)
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await ready(rig, iris.name)
        began = rig.clock.monotonic()
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        await until(rig, lambda: found(rig, iris.name) is None, "the unit has ended")
        assert rig.clock.monotonic() - began >= 0.6

    async def test_a_stopped_unit_is_forgotten_and_can_be_stopped_again(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=2))
        await ready(rig, iris.name, 2)
        for _ in range(2):
            await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        await until(rig, lambda: found(rig, iris.name) is None, "the unit is forgotten")
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))

    async def test_a_unit_that_still_starts_can_be_stopped(self, rig: Rig) -> None:
        iris = unit(lever="hang")
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await until(rig, lambda: states(rig, iris.name) == [ReplicaState.STARTING], "it is starting")
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        await until(rig, lambda: found(rig, iris.name) is None, "the unit is forgotten")

    async def test_a_unit_that_is_wanted_again_while_it_stops_stays(self, rig: Rig) -> None:
        iris = unit(lever="drain=0.5")
        await rig.driver.apply(Start(unit=iris, replicas=1))
        (old,) = await ready(rig, iris.name)
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        other = unit(lever="drain=0.5", startup_timeout_seconds=7.0)
        await refused(rig, Start(unit=other, replicas=1), RetryLater)
        await rig.driver.apply(Resize(unit=iris.name, owner=IRIS, replicas=1))
        (new,) = await ready(rig, iris.name)
        assert new.pid != old.pid

    async def test_owners_are_told_to_look_again(self, rig: Rig) -> None:
        async with hinted(rig) as keys:
            await rig.driver.apply(Start(unit=unit(), replicas=1))
            await until(rig, lambda: IRIS in keys, "a hint for the owner")
            await ready(rig, unit().name)
            await rig.step()
            keys.clear()
            rig.kill(members(rig, unit().name)[0])
            await until(rig, lambda: IRIS in keys, "a hint after the end")
            await rig.driver.apply(Run(task=task()))
            await until(rig, lambda: MODEL in keys, "a hint for the owner of a task")
            assert set(keys) <= {IRIS, MODEL}

    async def test_asking_again_for_what_is_already_so_tells_nobody(self, rig: Rig) -> None:
        await rig.driver.apply(Start(unit=unit(lever="drain=0.6"), replicas=1))
        await ready(rig, unit().name)
        await rig.driver.apply(Run(task=task()))
        await ended(rig, task().name)
        asked: tuple[tuple[Action, ...], ...] = (
            (Start(unit=unit(lever="drain=0.6"), replicas=1), Resize(unit=unit().name, owner=IRIS, replicas=1)),
            (Run(task=task()),),
            (Stop(unit=unit().name, owner=IRIS),),
        )
        for actions in asked:
            async with hinted(rig) as keys:
                for action in actions:
                    await rig.driver.apply(action)
                await rig.step()
                keys.clear()
                for action in actions:
                    await rig.driver.apply(action)
                await rig.step()
                assert keys == []


class TroubleSuite:
    """What goes wrong is told, and tried again without haste."""

    async def test_a_killed_replica_is_told_and_comes_back_quickly(self, rig: Rig) -> None:
        iris = unit()
        await rig.driver.apply(Start(unit=iris, replicas=2))
        first, second = await ready(rig, iris.name, 2)
        rig.kill(first)
        killed = await troubled(rig, iris.name, Reason.CRASHED)
        assert "SIGKILL" in message(killed)
        assert killed.address == ""
        assert members(rig, iris.name)[1] == second
        came_back, untouched = await ready(rig, iris.name, 2)
        assert came_back.pid != first.pid
        assert (came_back.name, came_back.restarts, came_back.trouble) == (first.name, 1, None)
        assert untouched.pid == second.pid

    async def test_a_replica_that_keeps_ending_is_started_with_growing_pauses(self, rig: Rig) -> None:
        iris = unit(lever="exit=3")
        began = rig.clock.monotonic()
        await rig.driver.apply(Start(unit=iris, replicas=1))

        def three_restarts() -> bool:
            rig.look_again()  # cuts no back-off short
            return members(rig, iris.name)[0].restarts == 3

        await until(rig, three_restarts, "three restarts")
        assert rig.clock.monotonic() - began >= 1 + 2
        crashed = members(rig, iris.name)[0]
        assert "exit status 3" in message(crashed)
        assert crashed.state is ReplicaState.PENDING
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        await until(rig, lambda: found(rig, iris.name) is None, "a waiting replica leaves at once")

    async def test_a_reported_failure_is_the_trouble(self, rig: Rig) -> None:
        iris = unit(lever="failure=ArtifactInvalid")
        await rig.driver.apply(Start(unit=iris, replicas=1))
        failed = await troubled(rig, iris.name, Reason.ARTIFACT_INVALID)
        assert message(failed) == "the file ends after 12 bytes"
        assert failed.restarts == 1

    async def test_a_replica_that_does_not_get_ready_is_ended(self, rig: Rig) -> None:
        iris = unit(lever="hang", startup_timeout_seconds=0.5)
        began = rig.clock.monotonic()
        await rig.driver.apply(Start(unit=iris, replicas=1))
        late = await troubled(rig, iris.name, Reason.STARTUP_TIMEOUT)
        assert rig.clock.monotonic() - began >= 0.5
        assert "0.5 s" in message(late)
        assert late.restarts == 1

    async def test_what_does_not_fit_waits_for_room(self, rig: Rig) -> None:
        large = Resources(memory_request_bytes=5 * GIB)
        rose = unit("rose-svc-00001.default", ROSE, resources=large)
        iris = unit(resources=large)
        await rig.driver.apply(Start(unit=rose, replicas=1))
        await ready(rig, rose.name)
        await rig.driver.apply(Start(unit=iris, replicas=1))
        waiting = await troubled(rig, iris.name, Reason.UNSCHEDULABLE)
        assert (waiting.state, waiting.restarts) == (ReplicaState.PENDING, 0)
        assert "5.0 GiB of memory (3.0 GiB of 8.0 GiB are free)" in message(waiting)
        await rig.driver.apply(Stop(unit=rose.name, owner=ROSE))
        await ready(rig, iris.name)

    async def test_a_missing_secret_is_named_and_waited_for(self, rig: Rig) -> None:
        token = Variable(name="TOKEN", secret=SECRET)
        maybe = Variable(name="MAYBE", secret=SecretKey(secret="store", key="other", optional=True))  # noqa: S106
        iris = unit(variables=(token, maybe))
        await rig.driver.apply(Start(unit=iris, replicas=1))
        waiting = await troubled(rig, iris.name, Reason.SECRET_NOT_FOUND)
        assert waiting.state is ReplicaState.PENDING
        assert "TOKEN needs key token of Secret store" in message(waiting)
        assert "MAYBE" not in message(waiting)
        rig.secrets[SECRET] = "open sesame"
        rig.look_again()
        await ready(rig, iris.name)


class DriverSuite(UnitsSuite, TroubleSuite, StreamsSuite, TasksSuite, MembersSuite, GangSuite, PrioritySuite):
    """All of it."""
