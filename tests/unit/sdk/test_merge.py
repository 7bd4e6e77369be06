from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelyard.sdk import merge

Object = dict[str, Any]

names = st.sampled_from(["a", "b", "c", "d"])
leaves = st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.integers(0, 2), max_size=2)
trees = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8)
specs = st.dictionaries(names, trees, max_size=4)


def manifest(spec: Object, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", **metadata}, "spec": spec}


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, word for word."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def applied(live: Object, body: Object) -> Object:
    found = merged(live, merge.patch(live, body))
    assert isinstance(found, dict)
    return found


@given(specs, specs)
def test_applying_twice_changes_nothing(first: Object, second: Object) -> None:
    live = applied(merge.annotated(manifest(first)), manifest(second))
    assert merge.patch(live, manifest(second)) == {}


@given(specs, specs)
def test_without_others_the_object_is_what_the_manifest_says(first: Object, second: Object) -> None:
    assert applied(merge.annotated(manifest(first)), manifest(second)) == merge.annotated(manifest(second))


@given(specs, specs, specs)
def test_what_others_set_stays(first: Object, second: Object, theirs: Object) -> None:
    foreign = {f"foreign-{key}": value for key, value in theirs.items()}
    live = merge.annotated(manifest(first))
    live = {**live, "spec": {**live["spec"], **foreign}, "status": {"x": 1}}
    found = applied(live, manifest(second))
    assert found["spec"] == {**second, **foreign}
    assert found["status"] == {"x": 1}


def test_a_field_that_somebody_changed_is_set_back() -> None:
    live = merge.annotated(manifest({"replicas": 1}))
    live["spec"] = {"replicas": 5}
    assert merge.patch(live, manifest({"replicas": 1})) == {"spec": {"replicas": 1}}


def test_truth_is_not_a_number() -> None:
    live = merge.annotated(manifest({"a": 1, "b": [0]}))
    assert merge.patch(live, manifest({"a": True, "b": [False]}))["spec"] == {"a": True, "b": [False]}


def test_a_null_asks_for_a_field_to_be_absent() -> None:
    live = merge.annotated(manifest({"a": 1}))
    assert merge.patch(live, manifest({"a": None}))["spec"] == {"a": None}
    assert "a" not in applied(live, manifest({"a": None}))["spec"]
    assert merge.patch(applied(live, manifest({"a": None})), manifest({"a": None})) == {}


def test_an_object_that_was_not_applied_keeps_its_fields() -> None:
    live = manifest({"a": 1, "b": 2})
    assert applied(live, manifest({"a": 3}))["spec"] == {"a": 3, "b": 2}


def test_a_damaged_annotation_counts_as_none() -> None:
    for text in ("{", "[]", "7"):
        live = manifest({"a": 1}, annotations={merge.LAST_APPLIED: text})
        assert merge.last_applied(live) == {}
        assert applied(live, manifest({"b": 2}))["spec"] == {"a": 1, "b": 2}


def test_the_annotation_is_spelled_as_kubectl_spells_it() -> None:
    body = manifest({"b": "<&> é", "a": 1})
    text = merge.annotated(body)["metadata"]["annotations"][merge.LAST_APPLIED]
    expected = (
        '{"apiVersion":"v1","kind":"X","metadata":{"annotations":{},"name":"x"},'
        '"spec":{"a":1,"b":"\\u003c\\u0026\\u003e é"}}\n'
    )
    assert text == expected
