"""Which fields differ, and what is said to follow from that."""

from typing import Any

import pytest

from modelyard.sdk.difference import Change, changes, consequences

Object = dict[str, Any]


def service(latest: str = "", generation: int = 1, **spec: Any) -> Object:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "iris", "namespace": "default", "uid": "u", "generation": generation},
        "spec": {"model": {"name": "iris"}, "replicas": 3, **spec},
        "status": {"latestCreatedRevision": latest, "latestReadyRevision": latest} if latest else {},
    }


def told(before: Object | None, after: Object, *, cluster: bool = True) -> tuple[str, ...]:
    return consequences(before, after, changes(before, after), cluster=cluster)


def test_what_servers_and_controllers_write_is_no_difference() -> None:
    after = service(generation=2)
    after["metadata"]["managedFields"] = []
    assert changes(service("iris-svc-00003"), after) == ()


def test_each_field_is_shown_with_its_path() -> None:
    before = service(resources={"limits": {"memory": "1Gi"}}, env=[{"name": "A", "value": "1"}])
    after = service(resources={"limits": {"memory": "2Gi"}}, env=[{"name": "B", "value": "1"}])
    found = changes(before, after)
    assert [each.path for each in found] == [
        *("spec.resources.limits.memory", "spec.env[A].name", "spec.env[A].value"),
        *("spec.env[B].name", "spec.env[B].value"),
    ]
    assert found[0].lines() == ('- spec.resources.limits.memory: "1Gi"', '+ spec.resources.limits.memory: "2Gi"')


def test_values_of_secrets_are_never_shown() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "b2xk"}}
    found = changes(secret, {**secret, "data": {"key": "bmV3"}, "type": "Opaque"})
    assert "bmV3" not in str(found)
    assert Change(path="type", before=None, after='"Opaque"') in found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"resources": {"limits": {"memory": "2Gi"}}},
            "makes revision iris-svc-00004 (spec.resources): its 3 replicas start beside those of iris-svc-00003, "
            "which answers until they are ready",
        ),
        ({"replicas": 5}, "5 replicas instead of 3 (spec.replicas)"),
        ({"timeout": "5s"}, "in force at once, no process is started (spec.timeout)"),
        ({"replicas": 0, "runtime": "r"}, "makes revision iris-svc-00004 (spec.runtime): nothing runs now"),
    ],
)
def test_what_follows_is_said(change: Object, expected: str) -> None:
    assert expected in told(service("iris-svc-00003"), service(**change))


def test_what_only_pods_have_changes_nothing_on_one_machine() -> None:
    before, after = service("iris-svc-00003"), service(podTemplate={"spec": {"nodeSelector": {"a": "b"}}})
    assert told(before, after)[0].startswith("makes revision iris-svc-00004 (spec.podTemplate)")
    assert told(before, after, cluster=False) == ("nothing runs otherwise",)


def test_labels_change_nothing_and_a_restart_does() -> None:
    labelled, restarted = service(), service()
    labelled["metadata"]["labels"] = {"team": "risk"}
    restarted["metadata"]["annotations"] = {"modelyard.dev/restart": "now"}
    assert told(service("iris-svc-00003"), labelled) == ("nothing runs otherwise",)
    assert told(service("iris-svc-00003"), restarted)[0].startswith("makes revision iris-svc-00004")


def test_new_objects_have_words_of_their_own() -> None:
    assert told(None, service(replicas=1)) == ("new: 1 replica starts",)
    inline = {**service(), "spec": {"model": {"uri": "s3://b/m.onnx"}}}
    assert told(None, inline) == ("new: s3://b/m.onnx is read as a Model of its own, then 1 replica starts",)
    job = {"kind": "ModelJob", "metadata": {"name": "j"}, "spec": {"score": {"model": {"name": "m"}}}}
    assert told(None, job) == ("new: it runs once",)
    assert told(None, {**job, "spec": {**job["spec"], "suspend": True}}) == ("new, suspended",)  # type: ignore[dict-item]


def test_a_job_that_has_started_keeps_what_is_recorded() -> None:
    job: Object = {"kind": "ModelJob", "metadata": {"name": "j"}, "spec": {"parallelism": 1}, "status": {}}
    after = {**job, "spec": {"parallelism": 2, "podTemplate": {"metadata": {"labels": {"a": "b"}}}}}
    assert "in force when the job starts (spec.podTemplate)" in told(job, after)
    job["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    assert told(job, after) == (
        "2 runners instead of 1 (spec.parallelism)",
        "no effect: the job has started (spec.podTemplate)",
    )
