import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import KINDS, Object, make, model, service
from modelyard.control.apiserver import jsonpath
from modelyard.control.apiserver.table import age, table

CREATED = "2026-01-01T00:00:00Z"
NOW = 1767225600.0 + 312


def printed(obj: Object) -> dict[str, Any]:
    """Cells by column."""
    obj["metadata"].setdefault("creationTimestamp", CREATED)
    result = table(KINDS[obj["kind"]], [obj], include_object="None", now=NOW, list_metadata={})
    names = [column["name"] for column in result["columnDefinitions"]]
    return dict(zip(names, result["rows"][0]["cells"], strict=True))


def test_a_service_is_printed_with_the_columns_of_its_definition() -> None:
    obj = service()
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "well"}
    obj["status"] = {"conditions": [{"type": "Other"}, ready], "readyReplicas": 2, "url": "http://x"}
    assert printed(obj) == {
        "Name": "iris",
        "URL": "http://x",
        "Ready": "True",
        "Reason": "Serving",
        "Replicas": 2,
        "Desired": None,
        "Latest": None,
        "Age": "5m12s",
        "Digest": None,
        "Message": "well",
    }


def test_every_match_of_a_path_is_printed() -> None:
    obj = make("Runtime", spec={"formats": [{"name": "onnx"}, {"name": "skops"}], "process": {}})
    assert printed(obj)["Formats"] == "onnx,skops"


def test_built_in_kinds_are_printed_as_kubectl_users_know_them() -> None:
    assert printed(make("Namespace", "a")) == {"Name": "a", "Status": "Active", "Age": "5m12s"}
    gone = make("Namespace", "a", metadata={"deletionTimestamp": CREATED})
    assert printed(gone)["Status"] == "Terminating"
    assert printed(make("ConfigMap", data={"a": "b"}, binaryData={"c": ""}))["Data"] == 2
    secret = printed(make("Secret", type="Opaque", data={"a": "YQ=="}))
    assert (secret["Type"], secret["Data"]) == ("Opaque", 1)
    assert printed(make("Lease", spec={}))["Holder"] == "<none>"
    owner = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelService", "name": "iris", "controller": True}
    revision = printed(make("ControllerRevision", data={}, revision=3, metadata={"ownerReferences": [owner]}))
    assert (revision["Controller"], revision["Revision"]) == ("modelservice.modelyard.dev/iris", "3")
    assert printed(make("ControllerRevision"))["Controller"] == "<none>"


def test_events_are_printed_with_what_they_are_about() -> None:
    event = make("Event", "e", type="Normal", reason="Ready", message="fine\n", lastTimestamp=CREATED, count=4)
    event |= {"involvedObject": {"kind": "Model", "name": "iris"}, "source": {"component": "modelyard", "host": "h"}}
    assert printed(event) == {
        "Last Seen": "5m12s",
        "Type": "Normal",
        "Reason": "Ready",
        "Object": "model/iris",
        "Subobject": "",
        "Source": "modelyard, h",
        "Message": "fine",
        "First Seen": "<unknown>",
        "Count": 4,
        "Name": "e",
    }


def test_rows_carry_as_much_of_the_object_as_asked_for() -> None:
    obj = model()
    kind = KINDS["Model"]

    def row(include: Any) -> Object:
        rows: list[Object] = table(
            kind, [obj], include_object=include, now=NOW, list_metadata={"resourceVersion": "7"}
        )["rows"]
        return rows[0]

    assert row("Object")["object"] == obj
    assert row("Metadata")["object"]["kind"] == "PartialObjectMetadata"
    assert row("Metadata")["object"]["metadata"] == obj["metadata"]
    assert "object" not in row("None")


def test_columns_are_left_out_after_the_first_table_of_a_watch() -> None:
    result = table(
        KINDS["Model"], [], include_object="None", now=0, list_metadata={"resourceVersion": "7"}, with_columns=False
    )
    assert result["columnDefinitions"] == []
    assert result["metadata"] == {"resourceVersion": "7"}


def test_wide_columns_have_a_priority() -> None:
    columns = table(KINDS["Model"], [], include_object="None", now=0, list_metadata={})["columnDefinitions"]
    assert {column["name"]: column["priority"] for column in columns}["Digest"] == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0.9, "0s"), (119, "119s"), (120, "2m"), (312, "5m12s"), (600, "10m"),
        (659, "10m"),
        (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"), (8 * 3600 + 60, "8h"), (47 * 3600, "47h"),
        (48 * 3600, "2d"), (49 * 3600, "2d1h"), (8 * 86400 + 7200, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"),
        (800 * 86400, "2y70d"), (9 * 365 * 86400 + 86400, "9y"),
    ],
)  # fmt: skip
def test_ages_read_as_kubectl_prints_them(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b", [1]),
        (".l[*].k", ["x", "y"]),
        (".l[0].k", ["x"]),
        (".l[-1].k", ["y"]),
        (".l[9]", []),
        ('.l[?(@.k=="y")].v', [2]),
        (".l[?(@.k != 'y')].v", [1]),
        (".missing.b", []),
        (r".m.a\.b/c", [3]),
        (".m['a.b/c']", [3]),
    ],
)
def test_paths_find_what_they_name(path: str, values: list[Any]) -> None:
    obj = {"a": {"b": 1}, "l": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "m": {"a.b/c": 3}}
    assert jsonpath.find(path, obj) == values


@given(st.text(alphabet=".[]*?@()='\"ab0 \\-", max_size=12))
@settings(max_examples=100)
def test_a_path_of_another_form_is_a_value_error(path: str) -> None:
    with contextlib.suppress(ValueError):
        jsonpath.find(path, {"a": [{"b": 1}]})
