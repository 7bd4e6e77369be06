from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.sdk.diagnosis import Case, diagnose

Object = dict[str, Any]
NOW = 1_800_000_000.0
STAMP = "2027-01-15T08:00:00Z"  # at NOW


def condition(kind: str, status: str, reason: str, message: str = "", generation: int = 1) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": "2027-01-15T07:59:00Z",
    }


def service(*conditions: Object, **status: Any) -> Object:
    return {
        "kind": "ModelService",
        "metadata": {"name": "digits", "generation": 1},
        "spec": {"model": {"name": "forest"}},
        "status": {"conditions": list(conditions), **status},
    }


def model(*conditions: Object) -> Object:
    return {
        "kind": "Model",
        "metadata": {"name": "forest", "generation": 1},
        "spec": {"uri": "models/forest.onnx"},
        "status": {"conditions": list(conditions)},
    }


def event(reason: str, message: str, count: int = 1) -> Object:
    return {"type": "Warning", "reason": reason, "message": message, "count": count, "lastTimestamp": STAMP}


def test_a_good_service_is_ready_and_serving() -> None:
    ready = condition("Ready", "True", "Serving", "digits-svc-00001 answers with 2 replicas")
    done = condition("Progressing", "False", "Complete")
    found = diagnose(Case(body=service(ready, done, url="http://h/v2/models/digits")), NOW)
    assert found.healthy
    assert found.headline == "ModelService digits is Ready and serving"
    assert "predict at http://h/v2/models/digits/infer" in found.text()


def test_a_failed_refresh_is_told_although_the_old_content_serves() -> None:
    ready = condition("Ready", "True", "Serving")
    broken = condition("ModelReady", "False", "ArtifactInvalid", "forest.onnx is truncated")
    found = diagnose(Case(body=service(ready, broken), model=model()), NOW)
    assert found.healthy
    assert "is Ready and serving, but:" in found.headline
    assert "ArtifactInvalid: forest.onnx is truncated" in found.text()
    assert "modelyard refresh digits" in found.text()


def test_a_crash_is_told_with_its_last_lines_and_what_still_serves() -> None:
    words = "digits-svc-00002: 0 of 1 replicas ready: exited with status 1:\nTraceback\nValueError: boom"
    body = service(
        condition("Ready", "False", "Crashed", words),
        condition("Available", "True", "Serving"),
        traffic=[{"revision": "digits-svc-00001", "percent": 100}],
        readyReplicas=1,
        desiredReplicas=1,
    )
    revisions = [{"metadata": {"name": "digits-svc-00002"}}]
    found = diagnose(Case(body=body, revisions=revisions, events=[event("Crashed", "it died", 5)]), NOW)
    text = found.text()
    assert found.headline == "ModelService digits is not Ready: Crashed (for 60s)"
    assert "  ValueError: boom" in text.splitlines()
    assert "answered meanwhile by digits-svc-00001" in text
    assert "Warning Crashed (5 times): it died" in text
    assert "modelyard logs digits" in text


def test_a_cause_is_said_once() -> None:
    words = "worker ended with status 1; its last lines:\n  kaboom"
    owned = model(condition("Ready", "False", "LoadFailed", words))
    owned["metadata"] |= {"name": "digits-1a2b3c4d-model", "ownerReferences": [{"kind": "ModelService"}]}
    body = service(condition("Ready", "False", "LoadFailed", f"Model digits-1a2b3c4d-model: {words}"))
    told = [event("LoadFailed", words), event("LoadFailed", f"Model digits-1a2b3c4d-model: {words}")]
    told.append({**event("Progressing", "reading models/forest.onnx"), "type": "Normal"})
    text = diagnose(Case(body=body, model=owned, events=told), NOW).text()
    assert text.count("worker ended with status 1") == 1
    assert "digits-1a2b3c4d-model" not in text
    assert "Warnings:" not in text


def test_a_replica_that_finds_no_room_is_told_once_with_what_to_do() -> None:
    words = "asks for 900 GiB of memory (23.5 GiB are free)"
    body = service(condition("Ready", "False", "Unschedulable", f"digits-svc-00001: 0 of 1 replicas ready: {words}"))
    told = [event("Unschedulable", f"digits-svc-00001.default-0: {words}"), event("NotEnforced", "spec.resources")]
    revisions = [{"metadata": {"name": "digits-svc-00001"}}]
    text = diagnose(Case(body=body, revisions=revisions, events=told), NOW).text()
    assert text.count("900 GiB") == text.count("digits-svc-00001") == 1
    assert "modelyard get modelservices -A" in text


def test_where_a_path_is_corrected_depends_on_who_declares_it() -> None:
    missing = condition("Ready", "False", "ArtifactNotFound", "there is nothing at a.onnx")
    inline = {**service(missing), "spec": {"model": {"uri": "a.onnx"}}}
    assert "or correct the uri in the manifest, and apply it" in diagnose(Case(body=inline), NOW).next_steps
    assert "or declare a Model of another name for another uri" in diagnose(Case(body=model(missing)), NOW).next_steps


def test_the_cause_is_looked_for_in_the_model() -> None:
    body = service(condition("Ready", "False", "ModelNotReady", "Model forest is not ready"))
    cause = model(condition("Ready", "False", "TrustRequired", "pickle runs code: set spec.trust to pickle"))
    found = diagnose(Case(body=body, model=cause), NOW)
    assert "not Ready: TrustRequired" in found.headline
    assert "pickle runs code" in found.details
    assert "requests get 503 meanwhile" in found.facts


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (service(), "has not been looked at yet"),
        (service(condition("Ready", "True", "Serving", generation=0)), "was changed a moment ago"),
        (service(condition("Ready", "True", "ScaledToZero", "no replicas")), "is scaled to zero"),
        ({**service(), "metadata": {"name": "x", "deletionTimestamp": STAMP}}, "is being deleted"),
    ],
)
def test_other_states_have_their_own_words(body: Object, expected: str) -> None:
    assert expected in diagnose(Case(body=body), NOW).headline


@given(st.sampled_from(list(Reason)), st.sampled_from(["True", "False", "Unknown"]), st.text(max_size=30))
def test_every_reason_has_an_answer(reason: Reason, status: str, message: str) -> None:
    ready = condition("Ready", status, reason, message)
    for body in (service(ready), model(ready)):
        found = diagnose(Case(body=body, model=model(ready), events=[event(reason, message)]), NOW)
        assert found.headline in found.text()
        assert found.healthy == (status == "True")


@pytest.mark.parametrize(
    ("reason", "cluster", "step"),
    [
        (Reason.LOCAL_PATH, True, "modelyard push"),
        (Reason.IMAGE_PULL_FAILED, True, "spec.podTemplate.spec.imagePullSecrets"),
        (Reason.OUT_OF_MEMORY, True, "raise spec.resources.limits.memory"),
        (Reason.QUOTA_EXCEEDED, True, "kubectl describe resourcequota -n default"),
        (Reason.POD_REFUSED, True, "as the cluster's admission says"),
        (Reason.OVERLAY_FORBIDDEN, False, "correct the manifest"),
        (Reason.UNSCHEDULABLE, True, "kubectl describe pods -n default -l modelyard.dev/service=digits"),
        (Reason.UNSCHEDULABLE, False, "modelyard get modelservices -A"),
        (Reason.ENVIRONMENT_MISSING, True, "Runtime"),
    ],
)
def test_what_is_done_on_a_cluster_is_said_for_a_cluster(reason: Reason, cluster: bool, step: str) -> None:
    found = diagnose(Case(body=service(condition("Ready", "False", reason, "as said")), cluster=cluster), NOW)
    assert any(step in each for each in found.next_steps), found.next_steps
    assert not cluster or "modelyard up" not in found.text()


def test_a_job_that_met_a_quota_waits_and_one_with_a_local_path_is_applied_again() -> None:
    status = {"conditions": [condition("Complete", "False", "LocalPath"), condition("Failed", "True", "LocalPath")]}
    failed = {"kind": "ModelJob", "metadata": {"name": "j", "generation": 1}, "spec": {"score": {}}, "status": status}
    steps = diagnose(Case(body=failed, cluster=True), NOW).next_steps
    assert steps[0] == "upload it: modelyard push PATH"
    assert steps[-1].startswith("then: modelyard delete modeljob j")


def policy(*conditions: Object) -> Object:
    return {
        "kind": "AccessPolicy",
        "metadata": {"name": "rule", "generation": 1},
        "spec": {"authentication": "none"},
        "status": {"conditions": list(conditions), "services": 1},
    }


def test_a_policy_that_opens_a_service_is_in_order_with_a_warning() -> None:
    ready = condition("Ready", "True", "Valid", "holds for 1 service")
    is_open = condition("Open", "True", "OpenToAnybody", "anybody may call digits")
    found = diagnose(Case(body=policy(ready, is_open)), NOW)
    assert found.healthy
    assert found.headline == "AccessPolicy rule is Ready, but:"
    assert "Open: OpenToAnybody: anybody may call digits" in found.text()
    assert "set spec.authentication to required" in found.text()


def test_a_policy_below_the_floor_says_how_to_mend_that() -> None:
    ready = condition("Ready", "False", "BelowFloor", "spec.authentication: none is less than the floor")
    found = diagnose(Case(body=policy(ready)), NOW)
    assert found.headline.startswith("AccessPolicy rule is not Ready: BelowFloor")
    assert "lower gateway.floor in the platform's settings" in found.text()
