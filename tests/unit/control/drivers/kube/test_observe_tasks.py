"""Jobs and their pods -> tasks."""

from typing import Any

import msgspec
import pytest

from modelyard.base.conditions import Reason
from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.observe import Facts
from modelyard.control.drivers.kube.trouble import Event
from modelyard.control.ir.observed import MemberState, ObservedTask, Trouble, Usage
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.task import Task
from modelyard.testing.driver_rig import crew, gang, task
from modelyard.wire import report as reports
from modelyard.wire.report import JobReport, PrepareReport, Report, UsageReport, failure

Object = dict[str, Any]
AT = "2026-11-28T18:00:00Z"
DONE = Report(job=JobReport(run=1, done=True))
FOUND = Report(prepare=PrepareReport(digest="sha256:0", format="onnx"))
FINAL = failure("InputInvalid", "line 7 is damaged")
LATER = failure("StoreUnreachable", "no answer", retry=True)


def job(*conditions: Object, asked: int = 2, **status: Any) -> Object:
    metadata = {"name": "j", "uid": "job", "creationTimestamp": AT, "annotations": {"modelyard.dev/asked": str(asked)}}
    found = [{"status": "True", "lastTransitionTime": AT, **each} for each in conditions]
    return {"metadata": metadata, "spec": {}, "status": {"conditions": found, **status}}


def pod(name: str, phase: str, index: int = 0, *, report: Report | None = None, code: int = 0, **more: Any) -> Object:
    state: Object = {"running": {"startedAt": AT}} if phase == "Running" else {"waiting": {"reason": "PodInitializing"}}
    if phase in ("Succeeded", "Failed"):
        said = reports.encode(report).decode() if report else more.pop("said", "")
        state = {"terminated": {"exitCode": code, "message": said, "startedAt": AT, "finishedAt": AT}}
    status = {"phase": phase, "containerStatuses": [{"name": "main", "ready": phase == "Running", "state": state}]}
    annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
    metadata = {"name": name, "uid": name, "creationTimestamp": AT, "annotations": annotations, **more}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": status}


def seen(what: Task, stored: Object, *pods: Object, **facts: Any) -> ObservedTask:
    return observe.task(what, stored, pods, Facts(now=2e9, **facts))


def test_a_task_that_is_complete_has_the_report_of_the_pod_that_ended_well() -> None:
    found = seen(task(), job({"type": "Complete"}), pod("a", "Failed", code=1), pod("b", "Succeeded", report=FOUND))
    assert (found.report, found.message, found.members) == (FOUND, "", ())
    assert found.finished_at == found.started_at > 1.7e9


def test_a_task_has_used_what_its_pods_say_at_their_ends_or_what_was_seen_before() -> None:
    def ended(name: str, phase: str, seconds: float) -> Object:
        used = UsageReport(cpu_seconds=seconds, memory_byte_seconds=seconds * 10)
        return pod(name, phase, report=msgspec.structs.replace(FOUND, usage=used))

    pods = ended("a", "Failed", 2.0), ended("b", "Succeeded", 3.0), pod("c", "Failed", code=137)
    both, seen_before = Usage(cpu_seconds=5.0, memory_byte_seconds=50.0), Usage(cpu_seconds=7.0)
    assert seen(task(), job({"type": "Complete"}), *pods).usage == both
    assert seen(task(), job({"type": "Complete"}), *pods, used={"job": seen_before}).usage == seen_before
    assert seen(crew(), job(), pod("a", "Running"), used={"job": seen_before}).usage == seen_before


def test_a_container_tells_what_it_used_each_time_that_it_was_started() -> None:
    def told(seconds: float) -> Object:
        said = reports.encode(msgspec.structs.replace(LATER, usage=UsageReport(cpu_seconds=seconds))).decode()
        return {"terminated": {"exitCode": 1, "message": said}}

    one = pod("a", "Running")
    (status,) = one["status"]["containerStatuses"]
    status |= {"restartCount": 2, "lastState": told(4.0)}
    latest = Usage(cpu_seconds=1.0)
    assert list(observe.usages(one, latest)) == [(1, Usage(cpu_seconds=4.0)), (2, latest)]
    status["state"] = told(6.0)
    assert list(observe.usages(one, latest))[1:] == [(2, Usage(cpu_seconds=6.0))]


def test_a_failure_that_was_reported_is_the_result() -> None:
    found = seen(task(), job({"type": "Failed"}), pod("a", "Failed", report=FINAL, code=3))
    assert found.report == FINAL


@pytest.mark.parametrize(("what", "again"), [(task(), True), (crew(), False)])
def test_a_crash_becomes_a_failure_with_the_last_lines(what: Task, again: bool) -> None:
    found = seen(what, job({"type": "Failed"}), pod("a", "Failed", code=139, said="Traceback: oh"))
    told = "was ended by SIGSEGV; its log ends with:\nTraceback: oh"
    assert found.report == failure(Reason.CRASHED, told, retry=again)


def test_beyond_its_deadline_a_task_says_what_it_was_waiting_for() -> None:
    words = {"job": Trouble(reason=Reason.UNSCHEDULABLE, message="0/3 nodes are available", since=1.0)}
    found = seen(task(), job({"type": "Failed", "reason": "DeadlineExceeded"}), words=words)
    assert found.message == "took longer than 600 s and was ended; Unschedulable: 0/3 nodes are available"
    assert found.report is None


def test_a_crew_is_done_by_one_member() -> None:
    found = seen(crew(), job({"type": "Complete"}), pod("a", "Succeeded", 1, report=DONE), pod("b", "Failed", code=143))
    assert found.report == DONE


def test_only_a_final_failure_ends_a_crew() -> None:
    pods = (pod("a", "Failed", 1, report=FINAL, code=3), pod("b", "Failed", report=LATER, code=1))
    assert seen(crew(), job({"type": "Failed"}), *pods).report == FINAL


def test_members_are_told_for_each_index_with_what_went_wrong_before() -> None:
    pods = (pod("a", "Failed", 1, code=7), pod("b", "Running"))
    told = {"b": Report(job=JobReport(run=1, committed=3))}
    found = seen(crew(), job(failed=1), *pods, reports=told)
    first, second = found.members
    assert (first.name, first.state, first.report) == ("j-0", MemberState.RUNNING, told["b"])
    assert (second.name, second.state) == ("j-1", MemberState.PENDING)
    assert second.trouble is not None
    assert second.trouble.message == "ended with exit status 7"
    assert (found.failures, found.finished_at, found.parallelism) == (1, None, 2)


def test_a_member_that_was_asked_to_end_is_ending() -> None:
    (only,) = seen(crew(), job(asked=1), pod("a", "Running", deletionTimestamp=AT)).members
    assert only.state is MemberState.ENDING


def test_a_job_that_gets_no_pod_says_why() -> None:
    events = {"job": Event(message='Error creating: pods "j-0" is forbidden: exceeded quota: small', since=5.0)}
    (only,) = seen(task(), job(asked=1), events=events).members
    assert only.trouble == Trouble(
        reason=Reason.QUOTA_EXCEEDED, message='pods "j-0" is forbidden: exceeded quota: small', since=5.0
    )


def test_a_job_of_a_queue_waits_for_room() -> None:
    queued = msgspec.structs.replace(crew(), pod=Pod(queue="team-a"))
    first, _ = seen(queued, job({"type": "Suspended"})).members
    assert first.trouble is not None
    assert (first.trouble.reason, "team-a" in first.trouble.message) == (Reason.UNSCHEDULABLE, True)


def test_a_report_of_a_foreign_kind_is_left_out() -> None:
    found = seen(task(), job({"type": "Failed"}), pod("a", "Failed", code=1, said='{"version": 9}'))
    assert found.report == failure(Reason.CRASHED, "ended with exit status 1", retry=True)


def test_a_gang_is_done_when_all_are_and_the_first_one_tells() -> None:
    other = Report(job=JobReport(run=1, done=True, note="by 1"))
    pods = (pod("b", "Succeeded", 1, report=other), pod("a", "Succeeded", 0, report=DONE))
    assert seen(gang(), job({"type": "Complete"}), *pods).report == DONE


def test_a_gang_in_which_one_has_failed_goes_on_and_has_failed_once() -> None:
    stored = job({"type": "Failed", "reason": "BackoffLimitExceeded"}, failed=2)
    found = seen(gang(), stored, pod("a", "Failed", code=7), pod("b", "Failed", 1, code=143))
    assert (found.finished_at, found.failures, len(found.members)) == (None, 1, 2)
    assert observe.is_to_be_replaced(stored, (pod("a", "Failed", code=7),))
    assert not observe.is_to_be_replaced(stored, (pod("a", "Failed", code=3, report=FINAL),))


def test_a_gang_of_which_the_cluster_ended_a_member_has_not_failed() -> None:
    told = "Pod default/a has condition DisruptionTarget matching FailJob rule at index 1"
    stored = job({"type": "Failed", "reason": "PodFailurePolicy", "message": told})
    assert seen(gang(), stored, pod("a", "Failed", code=143)).failures == 0


def test_a_final_failure_ends_a_gang() -> None:
    found = seen(gang(), job({"type": "Failed"}), pod("a", "Failed", report=FINAL, code=3))
    assert (found.report, found.finished_at is not None) == (FINAL, True)


def beside(found: Object, name: str, state: Object) -> Object:
    """A pod with a container that starts before `main`."""
    first = {"name": name, "ready": "running" in state, "state": state}
    return {**found, "status": {**found["status"], "initContainerStatuses": [first]}}


@pytest.mark.parametrize("name", ["worker", "progress"])
@pytest.mark.parametrize("code", [0, 137, 143])
def test_what_was_ended_with_the_work_is_not_to_blame(name: str, code: int) -> None:
    ended = {"terminated": {"exitCode": code, "message": "bye", "finishedAt": AT}}
    found = seen(task(), job({"type": "Failed"}), beside(pod("a", "Failed", code=139), name, ended))
    assert found.report == failure(Reason.CRASHED, "was ended by SIGSEGV", retry=True)


def test_a_worker_that_ends_again_and_again_is_named_with_its_last_lines() -> None:
    ended = {"exitCode": 1, "message": "no lexicon", "finishedAt": AT}
    waits = {"waiting": {"reason": "CrashLoopBackOff"}}
    found = beside(pod("a", "Running"), "worker", waits)
    found["status"]["initContainerStatuses"][0]["lastState"] = {"terminated": ended}
    trouble = seen(task(), job(asked=1), found).members[0].trouble
    assert trouble is not None
    assert (trouble.reason, trouble.message) == (
        Reason.CRASHED,
        "the worker ended with exit status 1; its log ends with:\nno lexicon",
    )


def test_a_worker_cannot_tell_what_came_of_the_work() -> None:
    lie = {"terminated": {"exitCode": 0, "message": reports.encode(DONE).decode(), "finishedAt": AT}}
    found = seen(task(), job({"type": "Complete"}), beside(pod("a", "Succeeded", report=FOUND), "worker", lie))
    assert found.report == FOUND


def test_while_a_program_runs_what_stands_beside_it_is_asked() -> None:
    waiting = pod("a", "Pending")
    assert not observe.tells(waiting)
    assert observe.tells(beside(waiting, "progress", {"running": {"startedAt": AT}}))
    assert not observe.tells(beside(waiting, "program", {"running": {"startedAt": AT}}))
    halfway = Report(job=JobReport(percent=50, note="running"))
    running = beside(waiting, "progress", {"running": {"startedAt": AT}})
    assert seen(crew(), job(asked=1), running, reports={"a": halfway}).members[0].report == halfway
