from apiserver_testing import make, model, service
from modelyard.control.apiserver.check import check


def test_a_valid_object_has_no_faults() -> None:
    assert check(service()) == []
    assert check(model()) == []
    assert check(make("Secret", stringData={"a": "b"})) == []


def test_every_fault_is_told_once_with_its_path() -> None:
    body = {**service(model={"name": "a", "uri": "b"}, replicas="x", foo=1), "bar": 1}
    found = {error.path: error.message for error in check(body)}
    assert set(found) == {"spec.model", "spec.replicas", "spec.foo", "bar", "object"}
    assert found["spec.model"] == "set exactly one of name and uri"
    assert "valid integer" in found["spec.replicas"]
    assert "some validation rules were not checked" in found["object"]


def test_faults_of_metadata_and_missing_parts_are_told() -> None:
    assert [error.path for error in check(make("Model", "A.b", spec={}))] == ["spec.uri", "metadata.name"]
    assert [error.path for error in check({"apiVersion": "modelyard.dev/v1alpha1", "kind": "Model"})] == [
        "metadata",
        "spec",
        "metadata.name",
    ]


def test_a_kind_that_is_not_served_names_those_that_are() -> None:
    (error,) = check({"apiVersion": "apps/v1", "kind": "Deployment"})
    assert error.path == "kind"
    assert "modelyard.dev/v1alpha1 ModelService" in error.message
