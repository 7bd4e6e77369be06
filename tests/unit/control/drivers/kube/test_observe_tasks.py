"""Jobs and their pods -> tasks."""

from typing import Any

import msgspec
import pytest

from modelyard.base.conditions import Reason
from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.observe import Facts
from modelyard.control.drivers.kube.trouble import Event
from modelyard.control.ir.observed import MemberState, ObservedTask, Trouble
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.task import Task
from modelyard.testing.driver_rig import crew, gang, task
from modelyard.wire import report as reports
from modelyard.wire.report import JobReport, PrepareReport, Report, failure

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
