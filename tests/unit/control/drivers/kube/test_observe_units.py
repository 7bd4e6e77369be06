"""Observations from what a real cluster stored; the files were taken from one (Kubernetes 1.36)."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.base.conditions import Reason
from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.observe import Facts
from modelyard.control.drivers.kube.trouble import Event
from modelyard.control.ir.observed import ObservedUnit, ReplicaState
from modelyard.control.ir.unit import Unit
from modelyard.testing.driver_rig import following
from modelyard.wire.report import Report, ServeReport, ShadowReport, StreamReport, failure
from modelyard.wire.work import WorkSpec

Object = dict[str, Any]
RECORDED = Path(__file__).parent / "recorded"
LATER = Facts(now=4e9)


def stored(name: str) -> tuple[Unit, Object, list[Object]]:
    found = json.loads((RECORDED / f"{name}.json").read_text())
    text = found["workload"]["metadata"]["annotations"]["modelyard.dev/unit-spec"]
    return msgspec.json.decode(text, type=Unit), found["workload"], found["pods"]


def observed(name: str, facts: Facts = LATER) -> ObservedUnit:
    return observe.unit(*stored(name), facts)


def test_a_ready_pod_has_an_address_and_no_trouble() -> None:
    found = observed("ready")
    (member,) = found.members
    assert member.state is ReplicaState.READY
    assert member.address == f"{stored('ready')[2][0]['status']['podIP']}:8080"
    assert member.started_at > 1.7e9
    assert (member.trouble, member.restarts, found.replicas) == (None, 0, 1)


def test_a_ready_pod_is_in_the_zone_that_its_label_says() -> None:
    what, workload, (pod,) = stored("ready")
    assert observed("ready").members[0].zone == "", "older clusters put no such label on pods"
    pod["metadata"].setdefault("labels", {})["topology.kubernetes.io/zone"] = "eu-1a"
    assert observe.unit(what, workload, [pod], LATER).members[0].zone == "eu-1a"


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("crash", Reason.CRASHED, "ended with exit status 7; its log ends with:\nabout to fall"),
        ("memory", Reason.OUT_OF_MEMORY, "used more than its memory limit of 64.0 MiB and was killed"),
        ("unschedulable", Reason.UNSCHEDULABLE, "didn't match Pod's node affinity/selector"),
        ("startup", Reason.STARTUP_TIMEOUT, "was not ready within 4 s and was ended"),
        ("secret", Reason.SECRET_NOT_FOUND, 'container main: secret "store" not found'),
        ("fetch", Reason.ARTIFACT_CHANGED, "the store has another artifact"),
        ("failure", Reason.WARMUP_FAILED, "the file ends after 12 bytes"),
        ("image", Reason.IMAGE_PULL_FAILED, "localhost/nothing:1"),
        ("quota", Reason.QUOTA_EXCEEDED, "exceeded quota: small"),
    ],
)
def test_what_is_wrong_is_named(name: str, reason: Reason, says: str) -> None:
    (member,) = observed(name).members
    assert member.trouble is not None
    assert member.trouble.reason == reason
    assert says in member.trouble.message
    assert 1.7e9 < member.trouble.since < 4e9
    assert (member.address, member.state is ReplicaState.READY) == ("", False)


def test_a_trouble_is_over_when_the_pod_is_ready_again() -> None:
    unit, workload, (pod,) = stored("crash")
    (status,) = pod["status"]["containerStatuses"]
    running = {"running": {"startedAt": "2026-11-28T18:00:00Z"}}
    status |= {"ready": True, "started": True, "lastState": status["state"], "state": running}
    for each in pod["status"]["conditions"]:
        each["status"] = "True"
    (member,) = observe.unit(unit, workload, [pod], LATER).members
    assert (member.state, member.trouble) == (ReplicaState.READY, None)


def test_a_pod_that_is_asked_to_end_drains_and_gets_no_requests() -> None:
    unit, workload, (pod,) = stored("ready")
    pod["metadata"]["deletionTimestamp"] = "2026-11-28T18:00:00Z"
    (member,) = observe.unit(unit, workload, [pod], LATER).members
    assert (member.state, member.address, member.trouble) == (ReplicaState.DRAINING, "", None)


def test_of_who_serves_a_report_is_shown_that_tells_of_copies() -> None:
    what, workload, (pod,) = stored("ready")
    for shadow, shown in ((None, False), (ShadowReport(compared=1), True)):
        told = Report(serve=ServeReport(ready=True, shadow=shadow))
        facts = Facts(now=LATER.now, reports={pod["metadata"]["uid"]: told})
        (member,) = observe.unit(what, workload, [pod], facts).members
        assert member.report == (told if shown else None)


def test_pods_that_have_ended_are_no_replicas() -> None:
    unit, workload, (pod,) = stored("ready")
    pod["status"]["phase"] = "Failed"
    assert observe.unit(unit, workload, [pod], LATER).members == ()


def test_what_is_being_deleted_was_asked_for_no_replicas() -> None:
    unit, workload, pods = stored("ready")
    workload["metadata"]["deletionTimestamp"] = "2026-11-28T18:00:00Z"
    assert observe.unit(unit, workload, pods, LATER).replicas == 0


def test_an_address_of_version_6_is_in_brackets() -> None:
    unit, workload, (pod,) = stored("ready")
    pod["status"]["podIP"] = "fd00::7"
    assert observe.unit(unit, workload, [pod], LATER).members[0].address == "[fd00::7]:8080"


def test_an_event_tells_of_a_secret_that_cannot_be_mounted() -> None:
    unit, workload, (pod,) = stored("ready")
    pod["status"] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    event = Event(message='MountVolume.SetUp failed for volume "keys" : secret "keys" not found', since=2e9)
    facts = Facts(now=4e9, events={pod["metadata"]["uid"]: event})
    (member,) = observe.unit(unit, workload, [pod], facts).members
    assert member.trouble is not None
    assert member.trouble.reason == Reason.SECRET_NOT_FOUND


def test_a_streams_runner_is_ready_when_it_says_so() -> None:
    assert follower(None).state is ReplicaState.STARTING
    assert follower(Report(stream=StreamReport(ready=False))).state is ReplicaState.STARTING
    ready = follower(Report(stream=StreamReport(ready=True, records=7)))
    assert (ready.state, ready.address) == (ReplicaState.READY, "")
    assert ready.report is not None


def test_a_streams_runner_that_is_late_is_told_unless_it_says_why() -> None:
    late = follower(None, now=4e9).trouble
    assert late is not None
    assert late.reason == Reason.STARTUP_TIMEOUT
    problem = failure("BrokerUnreachable", "nobody listens there", retry=True).failure
    assert follower(Report(stream=StreamReport(problem=problem)), now=4e9).trouble is None


def follower(report: Report | None, now: float = 1.7e9) -> Any:
    unit, workload, (pod,) = stored("ready")
    unit = msgspec.structs.replace(unit, work=WorkSpec(stream=following()))
    reports = {pod["metadata"]["uid"]: report} if report else {}
    (member,) = observe.unit(unit, workload, [pod], Facts(now=now, reports=reports)).members
    return member


def test_what_has_begun_is_read_back() -> None:
    body: Object = {"metadata": {"annotations": {"modelyard.dev/begun": "0,3"}}}
    assert observe.begun(body) == (0, 3)
    assert observe.begun({"metadata": {"annotations": {"modelyard.dev/begun": ""}}}) == ()
