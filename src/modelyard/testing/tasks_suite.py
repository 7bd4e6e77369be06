"""What every Driver does with tasks; see `driver_suite`."""

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.ir.actions import Adjust, Forget, Run
from modelyard.control.ir.observed import MemberState, ObservedMember
from modelyard.control.ir.unit import Credential, Resources
from modelyard.testing.driver_rig import (
    GIB,
    JOB,
    MODEL,
    ROSE,
    Rig,
    busy,
    crew,
    crewed,
    ended,
    failures,
    gang,
    hinted,
    pids,
    refused,
    result,
    stages,
    task,
    unit,
    until,
    upset,
    working,
)


class TasksSuite:
    """Tasks run once and keep what they found until they are forgotten."""

    async def test_a_task_runs_once_and_keeps_its_report(self, rig: Rig) -> None:
        prepare = task()
        await rig.driver.apply(Run(task=prepare))
        over = await ended(rig, prepare.name)
        assert over.report is not None
        assert over.report.prepare is not None
        assert (over.owner, over.attempt, over.message) == (MODEL, 1, "")
        await rig.driver.apply(Run(task=prepare))
        await rig.step()
        assert result(rig, prepare.name) == over

    async def test_a_task_that_fails_keeps_its_reason(self, rig: Rig) -> None:
        prepare = task(lever="failure=FormatUnknown", attempt=2)
        await rig.driver.apply(Run(task=prepare))
        over = await ended(rig, prepare.name)
        assert over.attempt == 2
        assert over.report is not None
        assert over.report.failure is not None
        assert over.report.failure.reason == "FormatUnknown"

    async def test_a_task_without_a_report_says_how_it_ended(self, rig: Rig) -> None:
        prepare = task(lever="exit=3")
        await rig.driver.apply(Run(task=prepare))
        over = await ended(rig, prepare.name)
        assert over.report is None
        assert "exit status 3" in over.message

    async def test_a_task_has_a_deadline(self, rig: Rig) -> None:
        prepare = task(lever="hang", deadline_seconds=0.5)
        began = rig.clock.monotonic()
        await rig.driver.apply(Run(task=prepare))
        over = await ended(rig, prepare.name)
        assert rig.clock.monotonic() - began >= 0.5
        assert "longer than 0.5 s" in over.message

    async def test_a_task_whose_memory_does_not_fit_fails_for_now(self, rig: Rig) -> None:
        prepare = task(resources=Resources(memory_request_bytes=9 * GIB))
        await rig.driver.apply(Run(task=prepare))
        over = await ended(rig, prepare.name)
        assert over.report is not None
        assert over.report.failure is not None
        assert (over.report.failure.reason, over.report.failure.retry) == (Reason.UNSCHEDULABLE, True)

    async def test_forgetting_a_task_that_runs_ends_it(self, rig: Rig) -> None:
        prepare = task(lever="hang")
        await rig.driver.apply(Run(task=prepare))
        await until(rig, lambda: result(rig, prepare.name) is not None, "the task is there")
        await refused(rig, Forget(task=prepare.name, owner=ROSE), UserError)
        for _ in range(2):
            await rig.driver.apply(Forget(task=prepare.name, owner=MODEL))
        await until(rig, lambda: result(rig, prepare.name) is None, "the task is forgotten")
        await rig.driver.apply(Forget(task=prepare.name, owner=MODEL))

    async def test_a_task_whose_credentials_are_missing_fails_for_now(self, rig: Rig) -> None:
        prepare = task(credentials=(Credential(role="model", secret="lake"),))  # noqa: S106  the name of one
        await rig.driver.apply(Run(task=prepare))
        over = await ended(rig, prepare.name)
        assert over.report is not None
        assert over.report.failure is not None
        assert (over.report.failure.reason, over.report.failure.retry) == (Reason.SECRET_NOT_FOUND, True)
        assert "model needs Secret lake" in over.report.failure.message

    async def test_what_cannot_be_a_task_is_refused(self, rig: Rig) -> None:
        for wrong in (
            task(restart=True),
            task(parallelism=2),
            task(work=unit().work),
            crew(parallelism=1001),
            crew(parallelism=-1),
            crew(gang=True),
            gang(restart=False),
            gang(parallelism=0),
        ):
            await refused(rig, Run(task=wrong), UserError)
        assert rig.driver.observe().tasks == ()


class MembersSuite:
    """Members of a task work side by side and are started again until the work is done."""

    async def test_members_run_at_once_and_are_named_by_index(self, rig: Rig) -> None:
        score = crew(parallelism=3)
        began = int(rig.clock.now())  # some tell whole seconds
        await rig.driver.apply(Run(task=score))
        some = await working(rig, score.name, 3)
        assert [each.name.rpartition("-")[2] for each in some] == ["0", "1", "2"]
        there = result(rig, score.name)
        assert there is not None
        assert (there.owner, there.parallelism, there.failures, there.finished_at) == (JOB, 3, 0, None)
        assert began <= there.started_at <= rig.clock.now()

    async def test_members_are_processes_of_their_own(self, rig: Rig) -> None:
        score = crew(parallelism=3)
        await rig.driver.apply(Run(task=score))
        some = await working(rig, score.name, 3)
        assert [each.name for each in some] == [f"{score.name}-{index}" for index in range(3)]
        assert len(pids(rig, score.name)) == 3

    async def test_members_take_no_turns_of_tasks_that_run_once(self, rig: Rig) -> None:
        await rig.driver.apply(Run(task=crew(parallelism=8)))
        await working(rig, crew().name, 8)
        await rig.driver.apply(Run(task=task()))
        assert (await ended(rig, task().name)).report is not None

    async def test_one_member_that_is_done_ends_the_task_and_the_others(self, rig: Rig) -> None:
        score = crew(lever="progress drain=0.3 2:done")
        await rig.driver.apply(Run(task=score))
        await busy(rig, score.name)
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=3))
        await until(rig, lambda: MemberState.ENDING in stages(rig, score.name), "others are asked to end")
        assert _running(rig, score.name)
        over = await ended(rig, score.name)
        assert over.report is not None
        assert over.report.job is not None
        assert over.report.job.done
        assert (over.members, over.failures, over.message) == ((), 0, "")

    async def test_a_stubborn_member_is_killed_when_its_grace_is_over(self, rig: Rig) -> None:
        score = crew(lever="progress stubborn 2:done", grace_seconds=0.6)
        await rig.driver.apply(Run(task=score))
        await busy(rig, score.name)
        began = rig.clock.monotonic()
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=3))
        assert (await ended(rig, score.name)).failures == 0
        assert rig.clock.monotonic() - began >= 0.6

    async def test_a_final_failure_ends_the_task(self, rig: Rig) -> None:
        score = crew(lever="1:fatal=InputInvalid")
        await rig.driver.apply(Run(task=score))
        over = await ended(rig, score.name)
        assert over.report is not None
        assert over.report.failure is not None
        assert (over.report.failure.reason, over.report.failure.retry) == ("InputInvalid", False)
        assert over.members == ()

    async def test_a_member_that_fails_is_counted_told_and_started_with_growing_pauses(self, rig: Rig) -> None:
        score = crew(lever="0:exit=3")
        began = rig.clock.monotonic()
        await rig.driver.apply(Run(task=score))
        _, other = await _besides(rig, score.name)

        def thrice() -> bool:
            rig.look_again()  # cuts no back-off short
            return failures(rig, score.name) == 3

        await until(rig, thrice, "three failures")
        assert rig.clock.monotonic() - began >= 1 + 2
        assert "exit status 3" in await upset(rig, score.name, Reason.CRASHED)
        assert crewed(rig, score.name)[1] == other
        assert not _finished(rig, score.name)

    async def test_a_failure_for_now_is_the_trouble(self, rig: Rig) -> None:
        score = crew(lever="retry=StoreUnreachable", parallelism=1)
        await rig.driver.apply(Run(task=score))
        assert "the store does not answer" in await upset(rig, score.name, Reason.STORE_UNREACHABLE)
        await until(rig, lambda: failures(rig, score.name) >= 1, "it is counted")
        assert not _finished(rig, score.name)

    async def test_a_killed_member_comes_back_and_its_trouble_stays(self, rig: Rig) -> None:
        score = crew()
        await rig.driver.apply(Run(task=score))
        first, second = await working(rig, score.name)
        rig.kill(first)
        assert "SIGKILL" in await upset(rig, score.name, Reason.CRASHED)
        came_back, untouched = await working(rig, score.name)
        assert came_back.pid != first.pid
        assert came_back.trouble is not None
        assert untouched == second
        assert failures(rig, score.name) == 1

    async def test_ending_well_without_saying_that_the_work_is_done_is_a_failure(self, rig: Rig) -> None:
        score = crew(lever="silent", parallelism=1)
        await rig.driver.apply(Run(task=score))
        assert "without saying that its work is done" in await upset(rig, score.name, Reason.CRASHED)
        assert failures(rig, score.name) >= 1

    async def test_the_next_start_may_do_what_the_first_could_not(self, rig: Rig) -> None:
        score = crew(lever="once=stumbled done=0.1", parallelism=1)
        await rig.driver.apply(Run(task=score))
        over = await ended(rig, score.name)
        assert over.report is not None
        assert over.report.job is not None
        assert over.failures == 1

    async def test_progress_is_seen_while_it_runs(self, rig: Rig) -> None:
        score = crew(lever="progress")
        async with hinted(rig) as keys:
            await rig.driver.apply(Run(task=score))
            await working(rig, score.name)
            keys.clear()
            reports = [each.report for each in await busy(rig, score.name)]
            assert [each.job.committed for each in reports if each and each.job] == [1, 1]
            await until(rig, lambda: keys == [JOB] * len(keys) != [], "a hint for the owner")

    async def test_a_task_grows_and_shrinks_from_the_highest_index(self, rig: Rig) -> None:
        score = crew(lever="drain=0.3", parallelism=1)
        await rig.driver.apply(Run(task=score))
        (kept,) = await working(rig, score.name, 1)
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=3))
        await working(rig, score.name, 3)
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=1))
        assert stages(rig, score.name) == [MemberState.RUNNING, MemberState.ENDING, MemberState.ENDING]
        assert await working(rig, score.name, 1) == (kept,)
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=0))
        await until(rig, lambda: crewed(rig, score.name) == (), "all have left")
        there = result(rig, score.name)
        assert there is not None
        assert (there.parallelism, there.failures, there.finished_at) == (0, 0, None)
        await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=1))
        await working(rig, score.name, 1)

    async def test_what_cannot_be_adjusted_is_refused(self, rig: Rig) -> None:
        await rig.driver.apply(Run(task=crew()))
        await rig.driver.apply(Run(task=gang()))
        await refused(rig, Adjust(task="gone.default", owner=JOB, parallelism=1), RetryLater)
        await refused(rig, Adjust(task=crew().name, owner=ROSE, parallelism=1), UserError)
        await refused(rig, Adjust(task=crew().name, owner=JOB, parallelism=1001), UserError)
        await refused(rig, Adjust(task=gang().name, owner=JOB, parallelism=1), UserError)
        await working(rig, crew().name)
        await working(rig, gang().name)

    async def test_forgotten_members_end_within_their_grace(self, rig: Rig) -> None:
        score = crew(lever="progress 1:stubborn drain=0.2", grace_seconds=0.6)
        await rig.driver.apply(Run(task=score))
        await busy(rig, score.name)
        began = rig.clock.monotonic()
        for _ in range(2):
            await rig.driver.apply(Forget(task=score.name, owner=JOB))
        await refused(rig, Adjust(task=score.name, owner=JOB, parallelism=1), RetryLater)
        await refused(rig, Run(task=score), RetryLater)
        await until(rig, lambda: result(rig, score.name) is None, "it is forgotten")
        assert rig.clock.monotonic() - began >= 0.6

    async def test_a_task_with_members_may_have_a_deadline(self, rig: Rig) -> None:
        score = crew(deadline_seconds=0.5)
        began = rig.clock.monotonic()
        await rig.driver.apply(Run(task=score))
        over = await ended(rig, score.name)
        assert rig.clock.monotonic() - began >= 0.5
        assert "longer than 0.5 s" in over.message
        assert (over.report, over.failures) == (None, 0)

    async def test_missing_credentials_are_named_and_waited_for(self, rig: Rig) -> None:
        roles = (Credential(role="input", secret="lake"), Credential(role="output", secret="lake"))  # noqa: S106
        score = crew(credentials=roles, parallelism=1)
        await rig.driver.apply(Run(task=score))
        said = await upset(rig, score.name, Reason.SECRET_NOT_FOUND)
        assert "input needs Secret lake; output needs Secret lake" in said
        assert stages(rig, score.name) == [MemberState.PENDING]
        rig.secret_files["lake"] = {"token": b"open sesame"}
        rig.look_again()
        (member,) = await working(rig, score.name, 1)
        assert member.trouble is None
        assert failures(rig, score.name) == 0

    async def test_asking_again_for_the_same_members_tells_nobody(self, rig: Rig) -> None:
        await rig.driver.apply(Run(task=crew()))
        await working(rig, crew().name)
        async with hinted(rig) as keys:
            await rig.step()
            keys.clear()
            await rig.driver.apply(Run(task=crew()))
            await rig.driver.apply(Adjust(task=crew().name, owner=JOB, parallelism=2))
            await rig.step()
            assert keys == []


async def _besides(rig: Rig, name: str) -> tuple[ObservedMember, ...]:
    """Wait until all members but the first run."""

    def fact() -> bool:
        some = stages(rig, name)
        return len(some) > 1 and all(each is MemberState.RUNNING for each in some[1:])

    await until(rig, fact, f"{name} runs besides its first member")
    return crewed(rig, name)


def _finished(rig: Rig, name: str) -> bool:
    each = result(rig, name)
    return each is not None and each.finished_at is not None


def _running(rig: Rig, name: str) -> bool:
    each = result(rig, name)
    return each is not None and each.finished_at is None
