from typing import Any

import pytest

from apiserver_testing import make, model, service
from modelyard.control.apiserver.check import check


def test_a_valid_object_has_no_faults() -> None:
    assert check(service()) == []
    assert check(model()) == []
    assert check(make("Secret", stringData={"a": "b"})) == []


def test_every_fault_is_told_once_with_its_path() -> None:
    body = {**service(model={"name": "a", "uri": "b"}, replicas="x", foo=1), "bar": 1}
    found = {error.path: error.message for error in check(body)}
    assert set(found) == {"spec.model", "spec.replicas", "spec.foo", "bar"}
    assert found["spec.model"] == "set exactly one of name and uri"
    assert found["spec.replicas"] == "expected a whole number"


def test_faults_of_metadata_and_missing_parts_are_told() -> None:
    assert [error.path for error in check(make("Model", "A.b", spec={}))] == ["spec.uri", "metadata.name"]
    assert [error.path for error in check({"apiVersion": "modelyard.dev/v1alpha1", "kind": "Model"})] == [
        "metadata",
        "spec",
    ]


def test_a_kind_that_is_not_served_names_those_that_are() -> None:
    (error,) = check({"apiVersion": "apps/v1", "kind": "Deployment"})
    assert error.path == "kind"
    assert "expected one of AccessPolicy, ClusterRole, ClusterRoleBinding, ConfigMap" in error.message


def test_a_misspelled_kind_or_version_names_the_field_and_the_right_word() -> None:
    (kind,) = check({"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelServce"})
    assert str(kind) == "kind: there is no kind 'ModelServce'; did you mean ModelService?"
    (version,) = check({**service(), "apiVersion": "modelyard.dev/v1"})
    assert str(version) == "apiVersion: is 'modelyard.dev/v1'; expected modelyard.dev/v1alpha1 for kind ModelService"
    (missing,) = check({"kind": "Model"})
    assert str(missing) == "apiVersion: is required; expected modelyard.dev/v1alpha1 for kind Model"


def test_names_durations_and_digests_say_how_they_are_spelled() -> None:
    found = {each.path: each.message for each in check({**service(timeout="5 minutes"), "metadata": {"name": "a.b"}})}
    assert found["metadata.name"].startswith("expected at most 63 lower-case letters")
    assert found["spec.timeout"].startswith("expected a duration")
    (digest,) = check(model(digest="sha256:abc"))
    assert digest.message == "expected sha256: and 64 hexadecimal digits"


def _stream(**changes: Any) -> dict[str, Any]:
    source = {"uri": "nats://nats:4222", "stream": "in", "subjects": ["in.>"]}
    sink = {"uri": "nats://nats:4222", "stream": "out", "subject": "out"}
    spec: dict[str, Any] = {"model": {"name": "m"}, "source": source, "sink": sink}
    for name, value in changes.items():
        spec[name] = {**spec[name], **value} if name in ("source", "sink") else value
    metadata = {"name": "s"}
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelStream", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("changes", "path", "expected"),
    [
        ({"suspend": "no"}, "spec.suspend", "expected true or false"),
        ({"start": {"time": "yesterday"}}, "spec.start.time", "expected a time, such as 2026-11-28T08:00:00Z"),
        ({"batch": {"wait": "10"}}, "spec.batch.wait", "expected a duration"),
        ({"source": {"stream": "a.b"}}, "spec.source.stream", "expected the name of a stream"),
        ({"source": {"subjects": ["a b"]}}, "spec.source.subjects[0]", "expected a subject"),
        ({"sink": {"subject": "out.*"}}, "spec.sink.subject", "expected a subject"),
    ],
)
def test_values_of_streams_say_what_was_expected_and_nothing_else(
    changes: dict[str, Any], path: str, expected: str
) -> None:
    (found,) = check(_stream(**changes))
    assert found.path == path
    assert expected in found.message
