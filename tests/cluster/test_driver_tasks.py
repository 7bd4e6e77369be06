"""Tasks on a real cluster: those that run once, and crews whose members share the work."""

import msgspec
import pytest

from cluster_driver_testing import MIB, Rig, driving
from cluster_testing import Namespace
from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.control.ir.actions import Adjust, Forget, Run
from modelyard.control.ir.observed import MemberState, ObservedTask
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Resources
from modelyard.wire.work import RunWork, WorkSpec
from stand_in_image_testing import PREFIX, VERSION

pytestmark = pytest.mark.usefixtures("stand_in")
IMAGE = f"{PREFIX}runtime:{VERSION}"


async def test_a_task_leaves_its_report_until_it_is_forgotten(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        prepare = rig.task()
        await rig.apply(Run(task=prepare))
        await rig.apply(Run(task=prepare))
        ended = await rig.ended(prepare.name)
        assert ended.report is not None
        assert ended.report.prepare is not None
        assert (ended.report.prepare.size_bytes, ended.owner, ended.attempt) == (12, prepare.owner, 1)
        await rig.apply(Forget(task=prepare.name, owner=prepare.owner))
        await rig.until(lambda: rig.result(prepare.name) is None, "it is forgotten")
        assert namespace("get", "jobs,pods", "-o", "name").split() == []


async def test_a_task_that_fails_leaves_why(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        prepare = rig.task("failure=ArtifactInvalid")
        await rig.apply(Run(task=prepare))
        ended = await rig.ended(prepare.name)
        assert _failure(ended) == (Reason.ARTIFACT_INVALID, "the file ends after 12 bytes", False)


async def test_a_task_whose_artifact_cannot_be_fetched(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        prepare = rig.task("unfetched=ArtifactNotFound")
        await rig.apply(Run(task=prepare))
        assert _failure(await rig.ended(prepare.name))[0] == Reason.ARTIFACT_NOT_FOUND


async def test_a_task_that_crashes_or_needs_too_much_memory_may_be_tried_again(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        limited = Resources(memory_limit_bytes=64 * MIB)
        crash, greedy = rig.task("say=fall exit=7"), rig.task("hungry=200", resources=limited)
        greedy = _renamed(greedy, "rose-prepare-1-1")
        await rig.apply(Run(task=crash), Run(task=greedy))
        told = "ended with exit status 7; its log ends with:\nabout to fall"
        assert _failure(await rig.ended(crash.name)) == (Reason.CRASHED, told, True)
        assert _failure(await rig.ended(greedy.name))[::2] == (Reason.OUT_OF_MEMORY, True)


async def test_a_task_that_takes_too_long_says_what_it_was_waiting_for(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        pod = Pod(overlay={"spec": {"nodeSelector": {"disk": "gold"}}})
        prepare = rig.task(deadline_seconds=5.0, pod=pod)
        await rig.apply(Run(task=prepare))
        await rig.trouble(prepare.name, Reason.UNSCHEDULABLE)
        ended = await rig.ended(prepare.name)
        assert ended.report is None
        assert ended.message.startswith("took longer than 5 s and was ended; Unschedulable: ")


async def test_a_crew_is_done_when_one_member_is(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew("progress 1:done=6")
        await rig.apply(Run(task=crew))
        await _work(rig, crew, 2)
        await rig.until(lambda: _reports(rig, crew) == [1, 1], "both tell how far they are")
        ended = await rig.ended(crew.name)
        assert ended.report is not None
        assert ended.report.job is not None
        assert (ended.report.job.note, ended.failures) == ("by 1", 0)
        phases = {each["status"]["phase"] for each in namespace.all("pods")}
        assert phases <= {"Succeeded", "Failed"}


async def test_a_final_failure_ends_a_crew(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew("1:failure=InputInvalid")
        await rig.apply(Run(task=crew))
        ended = await rig.ended(crew.name)
        assert _failure(ended) == (Reason.INPUT_INVALID, "the file ends after 12 bytes", False)


async def test_members_that_fail_are_counted_and_started_again(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew("say=fall exit=7", parallelism=1)
        await rig.apply(Run(task=crew))
        trouble = await rig.trouble(crew.name, Reason.CRASHED)
        assert trouble.message.endswith("about to fall")
        await rig.until(lambda: _found(rig, crew).failures >= 2, "it was tried again")
        assert _found(rig, crew).finished_at is None
        await rig.apply(Forget(task=crew.name, owner=crew.owner))
        await rig.until(lambda: rig.result(crew.name) is None, "it is forgotten")


async def test_a_crew_grows_shrinks_and_rests(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew(parallelism=1)
        await rig.apply(Run(task=crew))
        await _work(rig, crew, 1)
        for number in (3, 1, 0, 2):
            await rig.apply(Adjust(task=crew.name, owner=crew.owner, parallelism=number))
            assert _found(rig, crew).parallelism == number
            await _work(rig, crew, number)
        assert _found(rig, crew).failures == 0


async def test_a_pod_that_is_evicted_is_replaced_and_no_failure(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew(parallelism=1)
        await rig.apply(Run(task=crew))
        await _work(rig, crew, 1)
        (pod,) = namespace.all("pods")
        await rig.client.evict(namespace.name, pod["metadata"]["name"])
        await rig.until(lambda: _running(rig, crew) == 0, "it ends")
        await _work(rig, crew, 1)
        assert _found(rig, crew).failures == 0
        assert pod["metadata"]["name"] not in {
            each["metadata"]["name"] for each in namespace.all("pods") if each["status"]["phase"] == "Running"
        }


async def test_a_job_of_a_queue_waits_until_kueue_lets_it_in(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew("done", pod=Pod(queue="team-a"))
        await rig.apply(Run(task=crew))
        told = await rig.trouble(crew.name, Reason.UNSCHEDULABLE)
        assert told.message == "waits until Kueue has room in queue team-a"
        job = namespace.find("job", "score-job-1")
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
        namespace("patch", "job", "score-job-1", "-p", '{"spec": {"suspend": false}}')
        assert (await rig.ended(crew.name)).report is not None


async def test_a_task_that_is_ending_is_not_run_again_yet(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        crew = rig.crew(parallelism=1)
        await rig.apply(Run(task=crew))
        await _work(rig, crew, 1)
        await rig.apply(Forget(task=crew.name, owner=crew.owner))
        with pytest.raises(RetryLater):
            await rig.driver.apply(Run(task=crew))
        await rig.until(lambda: rig.result(crew.name) is None, "it is forgotten")
        await rig.apply(Run(task=crew))
        await _work(rig, crew, 1)


async def test_a_program_runs_in_an_image_of_its_own_before_its_output_is_committed(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        program = (
            "/usr/local/bin/python3",
            "-c",
            "import os; assert not [n for n in os.environ if n.startswith('MODELYARD_')];"
            "open(os.environ['OUTPUT_DIR'] + '/said', 'w').write('rank ' + os.environ['RANK'])",
        )
        run = RunWork(job="uid-2", job_name="default/train", command=program)
        train = rig.gang(work=WorkSpec(run=run), pod=Pod(image=IMAGE), parallelism=1, gang=False)
        await rig.apply(Run(task=train))
        ended = await rig.ended(train.name)
        assert ended.report is not None, ended.message
        assert ended.report.job is not None
        assert ended.report.job.note == "rank 0"


async def test_a_program_in_its_own_image_is_heard_while_it_runs(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        tell = "import os, time; open(os.environ['PROGRESS_FILE'], 'w').write('{\"progressPercentage\": 40}')"
        program = ("/usr/local/bin/python3", "-c", f"{tell}; time.sleep(600)")
        run = RunWork(job="uid-2", job_name="default/train", command=program)
        train = rig.gang(work=WorkSpec(run=run), pod=Pod(image=IMAGE), parallelism=1, gang=False)
        await rig.apply(Run(task=train))

        def told() -> bool:
            found = rig.result(train.name)
            reports = [each.report for each in found.members if each.report] if found else []
            return [each.job.percent for each in reports if each.job] == [40]

        await rig.until(told, "it tells how far it is")


async def test_a_program_that_fails_in_its_own_image_says_so(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        program = ("/usr/local/bin/python3", "-c", "raise SystemExit('no data')")
        run = RunWork(job="uid-2", job_name="default/train", command=program)
        train = rig.gang(work=WorkSpec(run=run), pod=Pod(image=IMAGE), parallelism=1, gang=False)
        await rig.apply(Run(task=train))
        trouble = await rig.trouble(train.name, Reason.PROGRAM_FAILED)
        assert trouble.message == "the program ended with exit status 1; its log ends with:\nno data"


async def test_members_of_a_gang_find_each_other_and_are_done_together(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        gang = rig.gang("progress done=8")
        await rig.apply(Run(task=gang))
        await _work(rig, gang, 2)
        await rig.until(lambda: _reports(rig, gang) == [1, 1], "both tell how far they are")
        first = next(pod for pod in namespace.all("pods") if "-0-" in pod["metadata"]["name"])
        environment = await rig.get(f"{first['status']['podIP']}:8081", "/environment")
        master = f"train-job-1-0.train-job-1.{namespace.name}.svc:29500"
        assert environment["MODELYARD_MASTER"] == master
        look = "import socket; print(socket.gethostbyname('" + master.partition(":")[0] + "'))"
        second = next(pod for pod in namespace.all("pods") if "-1-" in pod["metadata"]["name"])
        said = namespace("exec", second["metadata"]["name"], "-c", "main", "--", "/usr/local/bin/python3", "-c", look)
        assert said.strip() == first["status"]["podIP"]
        ended = await rig.ended(gang.name)
        assert ended.report is not None
        assert ended.report.job is not None
        assert ended.report.job.note == "by 0"


async def test_when_one_member_of_a_gang_fails_all_are_made_anew_and_the_attempt_counts(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        gang = rig.gang("1:from=2 done=6")
        await rig.apply(Run(task=gang))
        await rig.until(lambda: _found(rig, gang).failures == 1, "one has failed")
        assert _found(rig, gang).finished_at is None
        await rig.until(lambda: rig.result(gang.name) is None, "its Job is gone")
        await rig.apply(Run(task=gang))
        job = namespace.find("job", "train-job-1")
        assert job["metadata"]["annotations"]["modelyard.dev/attempt"] == "2"
        assert (await rig.ended(gang.name)).report is not None


async def test_an_evicted_member_of_a_gang_is_no_failure(namespace: Namespace) -> None:
    async with driving(namespace) as rig:
        gang = rig.gang()
        await rig.apply(Run(task=gang))
        await _work(rig, gang, 2)
        pod = namespace.all("pods")[0]["metadata"]["name"]
        failures = 0

        def gone() -> bool:
            nonlocal failures
            found = rig.result(gang.name)
            failures = max(failures, found.failures if found else 0)
            return found is None

        await rig.client.evict(namespace.name, pod)
        await rig.until(gone, "its Job is gone")
        assert failures == 0
        await rig.apply(Run(task=gang))
        await _work(rig, gang, 2)


def _renamed(task: Task, name: str) -> Task:
    return msgspec.structs.replace(task, name=f"{name}.{task.owner.namespace}")


def _found(rig: Rig, task: Task) -> ObservedTask:
    found = rig.result(task.name)
    assert found is not None
    return found


def _running(rig: Rig, task: Task) -> int:
    return sum(each.state is MemberState.RUNNING for each in _found(rig, task).members)


async def _work(rig: Rig, task: Task, members: int) -> None:
    expected = [MemberState.RUNNING] * members
    await rig.until(lambda: [each.state for each in _found(rig, task).members] == expected, f"{members} work")


def _reports(rig: Rig, task: Task) -> list[int]:
    reports = (each.report for each in _found(rig, task).members)
    return [each.job.committed for each in reports if each is not None and each.job is not None]


def _failure(task: ObservedTask) -> tuple[str, str, bool]:
    assert task.report is not None, task.message
    assert task.report.failure is not None
    return task.report.failure.reason, task.report.failure.message, task.report.failure.retry
