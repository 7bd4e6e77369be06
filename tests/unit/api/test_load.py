import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api import load
from modelyard.api.service import ModelService
from modelyard.base.errors import InvalidFields, UserError

SERVICE: dict[str, Any] = {
    "apiVersion": "modelyard.dev/v1alpha1",
    "kind": "ModelService",
    "metadata": {"name": "hello"},
    "spec": {"model": {"uri": "./iris.onnx"}},
}


def test_a_manifest_may_hold_many_documents_and_lists() -> None:
    text = "kind: A\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n"
    documents = load.parse(text, "m.yaml")
    assert [(d.body["kind"], d.line) for d in documents] == [("A", 1), ("B", 4), ("C", 4)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", r"m\.yaml:2: not valid YAML: key 'a' is given twice"),
        ("a: [1\n", r"m\.yaml:2: not valid YAML"),
        ("- 1\n", r"m\.yaml:1: expected an object"),
        ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper"),
        ("x" * (load.MAX_MANIFEST_BYTES + 1), "larger than 3 MiB"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load.parse(text, "m.yaml")


def test_aliases_cannot_blow_a_manifest_up() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(UserError, match="more than"):
        load.parse("\n".join(rows), "m.yaml")


def test_dates_stay_text() -> None:
    assert load.parse("a: 2026-11-23\n", "m.yaml")[0].body == {"a": "2026-11-23"}


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(UserError):
        load.parse(text, "m.yaml")


def test_all_errors_come_at_once_each_with_its_path() -> None:
    spec = {"model": {"uri": ""}, "replicas": -1, "timeout": "soon", "other": 1, "resources": {"limits": {"cpu": "-1"}}}
    with pytest.raises(InvalidFields) as caught:
        load.decode({**SERVICE, "spec": spec})
    assert {error.path for error in caught.value.errors} == {
        "spec.model.uri",
        "spec.replicas",
        "spec.timeout",
        "spec.other",
        "spec.resources.limits.cpu",
    }


def test_defaults_are_filled_in() -> None:
    service = load.decode(SERVICE)
    assert isinstance(service, ModelService)
    assert (service.spec.replicas, service.spec.timeout, service.metadata.namespace) == (1, "60s", "default")


def test_other_kinds_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="apps/v1 Deployment is not a kind of Modelyard"):
        load.decode({"apiVersion": "apps/v1", "kind": "Deployment"})
