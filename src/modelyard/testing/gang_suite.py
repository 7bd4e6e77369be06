"""What every Driver does with tasks that share the room there is, or come and go together; see `driver_suite`."""

from modelyard.base.conditions import Reason
from modelyard.control.ir.actions import Adjust, Forget, Run, Start, Stop
from modelyard.control.ir.observed import MemberState
from modelyard.control.ir.unit import Resources
from modelyard.testing.driver_rig import (
    GIB,
    IRIS,
    JOB,
    ROSE,
    Rig,
    crew,
    crewed,
    ended,
    failures,
    gang,
    pids,
    ready,
    stages,
    unit,
    until,
    upset,
    working,
)


class GangSuite:
    """Members of a gang come and go together."""

    async def test_a_gang_is_done_when_all_its_members_are(self, rig: Rig) -> None:
        train = gang(lever="0:done=0.1 1:done=1.5")
        await rig.driver.apply(Run(task=train))
        await until(rig, lambda: stages(rig, train.name) == [MemberState.DONE, MemberState.RUNNING], "one is done")
        over = await ended(rig, train.name)
        assert over.report is not None
        assert over.report.job is not None
        assert over.report.job.note == "by member 0"
        assert over.failures == 0

    async def test_the_failure_of_one_replaces_all_and_counts_once(self, rig: Rig) -> None:
        train = gang(parallelism=3)
        await rig.driver.apply(Run(task=train))
        before = await working(rig, train.name, 3)
        rig.kill(before[1])
        assert "SIGKILL" in await upset(rig, train.name, Reason.CRASHED, 1)
        after = await working(rig, train.name, 3)
        assert not {each.pid for each in before} & {each.pid for each in after}
        assert [each.trouble is not None for each in after] == [False, True, False]
        assert failures(rig, train.name) == 1

    async def test_what_a_done_member_did_counts_for_its_attempt_alone(self, rig: Rig) -> None:
        train = gang(lever="0:done=0.1 1:once=stumbled 1:done=0.2")
        await rig.driver.apply(Run(task=train))
        over = await ended(rig, train.name)
        assert over.report is not None
        assert over.report.job is not None
        assert over.failures == 1

    async def test_a_final_failure_of_one_ends_the_gang(self, rig: Rig) -> None:
        train = gang(lever="1:fatal=ProgramFailed")
        await rig.driver.apply(Run(task=train))
        over = await ended(rig, train.name)
        assert over.report is not None
        assert over.report.failure is not None
        assert over.report.failure.reason == "ProgramFailed"

    async def test_a_gang_starts_only_when_there_is_room_for_all(self, rig: Rig) -> None:
        rose = unit("rose-svc-00001.default", ROSE, resources=_gib(3))
        train = gang(resources=_gib(3))
        await rig.driver.apply(Start(unit=rose, replicas=1))
        await ready(rig, rose.name)
        await rig.driver.apply(Run(task=train))
        assert "6.0 GiB of memory (5.0 GiB of 8.0 GiB are free)" in await upset(
            rig, train.name, Reason.UNSCHEDULABLE, 1
        )
        assert pids(rig, train.name) == set()
        await rig.driver.apply(Stop(unit=rose.name, owner=ROSE))
        await working(rig, train.name)
        assert failures(rig, train.name) == 0


class PrioritySuite:
    """Room is shared by priority: services before jobs, and jobs among themselves."""

    async def test_members_start_where_there_is_room_and_wait_otherwise(self, rig: Rig) -> None:
        score = crew(resources=_gib(3), parallelism=3)
        await rig.driver.apply(Run(task=score))
        said = await upset(rig, score.name, Reason.UNSCHEDULABLE, 2)
        assert "3.0 GiB of memory (2.0 GiB of 8.0 GiB are free)" in said
        assert stages(rig, score.name) == [MemberState.RUNNING, MemberState.RUNNING, MemberState.PENDING]
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=2))
        await working(rig, score.name)

    async def test_a_service_gets_the_room_of_as_few_members_as_needed(self, rig: Rig) -> None:
        score = crew(resources=_gib(4), lever="drain=0.2")
        iris = unit(resources=_gib(3))
        await rig.driver.apply(Run(task=score))
        first, second = await working(rig, score.name)
        await rig.driver.apply(Start(unit=iris, replicas=1))
        assert f"made room for {iris.name}-0" in await upset(rig, score.name, Reason.PREEMPTED, 1)
        await ready(rig, iris.name)
        assert stages(rig, score.name) == [MemberState.RUNNING, MemberState.PENDING]
        assert crewed(rig, score.name)[0] == first
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        again = await working(rig, score.name)
        assert again[1].pid != second.pid
        assert again[1].trouble is None
        assert failures(rig, score.name) == 0

    async def test_a_member_that_waits_to_be_started_again_makes_room_too(self, rig: Rig) -> None:
        score = crew(resources=_gib(5), lever="exit=3", parallelism=1)
        iris = unit(resources=_gib(5))
        await rig.driver.apply(Run(task=score))
        await until(rig, lambda: failures(rig, score.name) == 2, "two failures")
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await upset(rig, score.name, Reason.PREEMPTED)
        await ready(rig, iris.name)
        assert stages(rig, score.name) == [MemberState.PENDING]
        assert failures(rig, score.name) == 2

    async def test_a_gang_makes_room_as_a_whole(self, rig: Rig) -> None:
        train = gang(resources=_gib(3))
        iris = unit(resources=_gib(3))
        await rig.driver.apply(Run(task=train))
        before = await working(rig, train.name)
        await rig.driver.apply(Start(unit=iris, replicas=1))
        await upset(rig, train.name, Reason.PREEMPTED, 0)
        await ready(rig, iris.name)
        assert stages(rig, train.name) == [MemberState.PENDING] * 2
        await rig.driver.apply(Stop(unit=iris.name, owner=IRIS))
        after = await working(rig, train.name)
        assert not {each.pid for each in before} & {each.pid for each in after}
        assert failures(rig, train.name) == 0

    async def test_a_job_of_a_higher_priority_goes_first(self, rig: Rig) -> None:
        low = crew("low-job-abc.default", resources=_gib(5), parallelism=1)
        high = crew("high-job-abc.default", resources=_gib(5), parallelism=1, priority=5)
        same = crew("same-job-abc.default", resources=_gib(5), parallelism=1, priority=5)
        await rig.driver.apply(Run(task=low))
        await working(rig, low.name, 1)
        await rig.driver.apply(Run(task=high))
        await upset(rig, low.name, Reason.PREEMPTED)
        (running,) = await working(rig, high.name, 1)
        await rig.driver.apply(Run(task=same))
        await upset(rig, same.name, Reason.UNSCHEDULABLE)
        assert crewed(rig, high.name) == (running,)
        await rig.driver.apply(Forget(task=high.name, owner=JOB))
        await working(rig, same.name, 1)
        assert stages(rig, low.name) == [MemberState.PENDING]

    async def test_a_job_never_takes_the_room_of_a_service(self, rig: Rig) -> None:
        iris = unit(resources=_gib(5))
        score = crew(resources=_gib(5), parallelism=1, priority=5)
        await rig.driver.apply(Start(unit=iris, replicas=1))
        (replica,) = await ready(rig, iris.name)
        await rig.driver.apply(Run(task=score))
        await upset(rig, score.name, Reason.UNSCHEDULABLE)
        assert await ready(rig, iris.name) == (replica,)


def _gib(count: int) -> Resources:
    return Resources(memory_request_bytes=count * GIB)
