import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import DIGEST, KINDS, Object, code_of, json_values, make, model, service
from modelyard.control.apiserver.admission import admit
from modelyard.control.apiserver.status import StatusError


def stored(obj: Object, old: Object | None = None, **options: Any) -> Object:
    return admit(KINDS[obj["kind"]], obj, old, **options)[0]


def refused(obj: Any, old: Object | None = None, *, kind: str = "", **options: Any) -> StatusError:
    with pytest.raises(StatusError) as error:
        admit(KINDS[kind or obj["kind"]], obj, old, **options)
    return error.value


def paths(error: StatusError) -> list[str]:
    return [cause.field for cause in error.causes]


def test_a_new_object_gets_its_defaults_and_loses_its_status() -> None:
    obj = stored({**service(), "status": {"replicas": 3}})
    assert obj == service(replicas=1, timeout="60s")


def test_the_object_given_is_not_changed() -> None:
    obj = service(replicas=None)
    stored(obj)
    assert obj == service(replicas=None)


def test_unknown_fields_are_refused_warned_about_or_ignored() -> None:
    obj = {**service(replica=3), "metadata": {"name": "iris", "lables": {}}}
    error = refused(obj)
    assert (error.code, error.reason) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "metadata.lables", unknown field "spec.replica"' in error.message
    pruned, warnings = admit(KINDS["ModelService"], obj, None, field_validation="Warn")
    assert warnings == ['unknown field "metadata.lables"', 'unknown field "spec.replica"']
    assert "replica" not in pruned["spec"]
    assert admit(KINDS["ModelService"], obj, None, field_validation="Ignore") == (pruned, [])


def test_all_violations_are_told_at_once_in_the_words_of_kubernetes() -> None:
    error = refused(service(model={"name": "a", "uri": "b"}, replicas=-1))
    assert error.message == (
        'ModelService.modelyard.dev "iris" is invalid: '
        "[spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0, "
        'spec.model: Invalid value: "object": set exactly one of name and uri]'
    )
    assert error.status()["details"]["kind"] == "ModelService"
    assert (error.status()["code"], error.status()["reason"]) == (422, "Invalid")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "Model"}, 'kind: Invalid value: "Model": must be ModelService'),
        ({"apiVersion": "v2"}, "the API version in the data (v2) does not match"),
        ({"kind": ""}, "Object 'Kind' is missing"),
        ({"apiVersion": None}, "Object 'apiVersion' is missing"),
        ({"metadata": []}, "Required value: name or generateName is required"),
        ({"metadata": "x"}, "metadata in body must be of type object"),
        ({"metadata": {"name": 1}}, "metadata.name in body must be of type string"),
        ({"metadata": {"name": "a", "labels": {"b": True}}}, "metadata.labels.b in body must be of type string"),
        ({"metadata": {"name": "a", "creationTimestamp": "now"}}, "must be of type date-time"),
        ({"metadata": {"name": "Iris"}}, "a lowercase RFC 1123 label must consist of"),
        ({"metadata": {"name": "a.b"}}, "a lowercase RFC 1123 label must consist of"),
        ({"metadata": {"name": "a" * 41}}, "metadata.name is at most 40 characters"),
        ({"metadata": {"generateName": "A-"}}, "metadata.generateName: Invalid value"),
        ({"metadata": {"name": "a", "labels": {"-a": "b"}}}, "metadata.labels: Invalid value"),
        ({"metadata": {"name": "a", "labels": {"a": "b c"}}}, "a valid label must be an empty string or consist"),
        ({"metadata": {"name": "a", "annotations": {"a/b/c": ""}}}, "metadata.annotations: Invalid value"),
        ({"metadata": {"name": "a", "annotations": {"a": "b" * 2**18}}}, "may not be more than 262144 bytes"),
        ({"metadata": {"name": "a", "finalizers": ["a b"]}}, "metadata.finalizers: Invalid value"),
        ({"metadata": {"name": "a", "ownerReferences": [{"kind": "B"}]}}, "metadata.ownerReferences.uid"),
        ({"metadata": {"name": "a", "namespace": "A"}}, "metadata.namespace: Invalid value"),
    ],
)
def test_headers_that_do_not_fit_are_refused(change: Object, expected: str) -> None:
    assert expected in refused({**service(), **change}, kind="ModelService").message


def test_only_one_owner_manages_an_object() -> None:
    owner = {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "1", "controller": True}
    one = make("Model", metadata={"ownerReferences": [owner]}, spec={"uri": "a"})
    assert stored(one) == one
    both = make("Model", metadata={"ownerReferences": [owner, {**owner, "uid": "2", "name": "b"}]}, spec={"uri": "a"})
    assert "Only one reference can have Controller set to true" in refused(both).message


def test_names_of_built_in_objects_may_have_dots_but_namespaces_may_not() -> None:
    assert stored(make("ConfigMap", "a.b"))["metadata"]["name"] == "a.b"
    assert paths(refused(make("Namespace", "a.b"))) == ["metadata.name"]
    assert "not allowed on this type" in refused(make("Namespace", metadata={"namespace": "x"})).message


def test_an_update_keeps_the_identity_and_refuses_another() -> None:
    old = stored(service())
    old["metadata"] |= {
        "uid": "u",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "resourceVersion": "7",
    }
    new = stored(service(replicas=2), old)
    assert new["metadata"] == {
        **service()["metadata"],
        "uid": "u",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    other = {**service(), "metadata": {"name": "b", "creationTimestamp": "2027-01-01T00:00:00Z"}}
    assert paths(refused(other, old)) == ["metadata.name", "metadata.creationTimestamp"]
    error = refused({**service(), "metadata": {"name": "iris", "uid": "v"}}, old)
    assert (error.code, error.reason) == (409, "Conflict")


def test_an_object_on_its_way_out_gets_no_new_finalizers() -> None:
    old = make(
        "Model", metadata={"finalizers": ["a/b"], "deletionTimestamp": "2026-01-01T00:00:00Z"}, spec={"uri": "a"}
    )
    kept = make("Model", metadata={"finalizers": []}, spec={"uri": "a"})
    assert stored(kept, old)["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    added = make("Model", metadata={"finalizers": ["a/b", "c/d"]}, spec={"uri": "a"})
    assert "no new finalizers can be added" in refused(added, old).message


def test_a_write_leaves_the_status_and_a_status_write_leaves_everything_else() -> None:
    old = {**stored(model(format="onnx")), "status": {"format": "onnx"}}
    new = stored({**model(format="skops"), "status": {"format": "x"}}, old)
    assert (new["spec"]["format"], new["status"]) == ("skops", {"format": "onnx"})
    changed = {**model(format="skops"), "status": {"format": "x"}}
    changed["metadata"] |= {"labels": {"a": "b"}, "resourceVersion": "4"}
    new = stored(changed, old, subresource="status")
    assert (new["spec"], new["status"]) == (old["spec"], {"format": "x"})
    assert new["metadata"] == {**old["metadata"], "resourceVersion": "4"}


def test_a_status_that_breaks_its_schema_is_refused() -> None:
    old = stored(model())
    error = refused({**old, "status": {"conditions": [{"type": "Ready"}]}}, old, subresource="status")
    assert "status.conditions[0].reason" in paths(error)


def test_the_artifact_of_a_model_cannot_be_changed() -> None:
    old = stored(model())
    assert paths(refused(model(uri="other"), old)) == ["spec.uri"]
    assert paths(refused(model(digest=DIGEST), old)) == ["spec"]
    assert stored(model(format="onnx"), old)["spec"]["format"] == "onnx"


def test_texts_of_a_secret_become_data() -> None:
    obj = stored(make("Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"a": "new"}))
    assert obj["data"] == {"a": base64.b64encode(b"new").decode(), "b": "Yg=="}
    assert "stringData" not in obj
    assert obj["type"] == "Opaque"


@pytest.mark.parametrize(
    "part", [{"data": {"password": "hunter2!"}}, {"data": {"password": 1234567}}, {"stringData": {"p": 7654321}}]
)
def test_refusals_never_repeat_the_value_of_a_secret(part: Object) -> None:
    error = refused(make("Secret", **part))
    assert not any(value in str(error.status()) for value in ("hunter2", "1234567", "7654321"))


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (make("ConfigMap", data={"a b": ""}), "data[a b]"),
        (make("ConfigMap", data={"..a": ""}), "data[..a]"),
        (make("ConfigMap", binaryData={"a": "?"}), "binaryData.a"),
        (make("ConfigMap", data={"a": ""}, binaryData={"a": ""}), "data[a]"),
        (make("ConfigMap", data={"a": "x" * 2**20, "b": "x"}), "data"),
        (make("Secret", data={"a": base64.b64encode(b"x" * (2**20 + 1)).decode()}), "data"),
        (make("ControllerRevision", data={}, revision=-1), "revision"),
        (make("ControllerRevision", data={}), "revision"),
        (make("Event", involvedObject={"namespace": "other"}), "involvedObject.namespace"),
        (make("Lease", spec={"leaseDurationSeconds": 0}), "spec.leaseDurationSeconds"),
    ],
)
def test_built_in_objects_that_break_their_rules_are_refused(obj: Object, path: str) -> None:
    assert paths(refused(obj)) == [path]


def test_what_is_immutable_stays_as_it_is() -> None:
    secret = stored(make("Secret", type="a/b", data={"a": "YQ=="}, immutable=True))
    assert stored(
        make("Secret", metadata={"labels": {"a": "b"}}, **{k: secret[k] for k in ("type", "data", "immutable")}), secret
    )
    assert paths(refused(make("Secret", type="a/b", stringData={"a": "b"}), secret)) == ["immutable", "data"]
    assert paths(refused(make("Secret", type="c", data={"a": "YQ=="}, immutable=True), secret)) == ["type"]
    config = stored(make("ConfigMap", data={"a": "b"}, immutable=True))
    assert paths(refused(make("ConfigMap", data={}, immutable=True), config)) == ["data"]
    revision = stored(make("ControllerRevision", data={"a": 1}, revision=1))
    assert stored(make("ControllerRevision", data={"a": 1}, revision=2), revision)["revision"] == 2
    assert paths(refused(make("ControllerRevision", data={"a": True}, revision=1), revision)) == ["data"]


def test_recorded_data_is_stored_as_it_is() -> None:
    data: Object = {"none": None, "list": [None, {"a": None}], "text": "", "deep": {"x": {"y": [[]]}}}
    assert stored(make("ControllerRevision", data=data, revision=1))["data"] == data


def test_a_namespace_is_labeled_with_its_name_and_active() -> None:
    obj = stored(make("Namespace", "team"))
    assert obj["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    assert obj["status"] == {"phase": "Active"}


def test_built_in_objects_may_leave_out_their_kind() -> None:
    obj, _ = admit(KINDS["ConfigMap"], {"metadata": {"name": "a"}, "data": {"k": "v"}}, None)
    assert (obj["apiVersion"], obj["kind"]) == ("v1", "ConfigMap")


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(
    obj=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("metadata", "spec", "status", "data", "type", "revision", "stringData", "involvedObject"), json_values
        ),
    )
    | json_values
)
@settings(max_examples=25)
def test_anything_is_admitted_or_refused_with_a_status(kind: str, obj: Any) -> None:
    if isinstance(obj, dict):
        obj = {**make(kind), **obj}
    code = code_of(lambda: admit(KINDS[kind], obj, None, field_validation="Ignore"))
    assert code in (200, 400, 422)
    if code == 200:
        once, _ = admit(KINDS[kind], obj, None, field_validation="Ignore")
        assert admit(KINDS[kind], once, once) == (once, [])
