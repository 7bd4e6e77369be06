import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import KINDS, Object, code_of, json_values, make
from modelyard.control.apiserver import patch
from modelyard.control.apiserver.status import StatusError

CUSTOM, SECRET = KINDS["ModelService"], KINDS["Secret"]


def json_patch(current: Object, *operations: Any) -> Object:
    return patch.apply(CUSTOM, patch.JSON_PATCH, current, list(operations))


def strategic(current: Object, change: Any) -> Object:
    return patch.apply(SECRET, patch.STRATEGIC_MERGE_PATCH, current, change)


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_gives_what_the_rfc_says(target: Any, change: Any, result: Any) -> None:
    assert patch.merge(target, change) == result


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="abc", max_size=1), inner, max_size=3),
    max_leaves=10,
)


@given(plain, plain)
@settings(max_examples=80)
def test_merging_the_same_patch_twice_changes_nothing_more_and_leaves_the_target(target: Any, change: Any) -> None:
    before = json.dumps(target)
    once = patch.merge(target, change)
    assert patch.merge(once, change) == once
    assert json.dumps(target) == before


def test_the_three_formats_change_a_copy() -> None:
    current = {"spec": {"replicas": 1}}
    assert patch.apply(
        CUSTOM, "application/merge-patch+json; charset=utf-8", current, b'{"spec": {"replicas": 2}}'
    ) == {"spec": {"replicas": 2}}
    assert json_patch(current, {"op": "add", "path": "/spec/x", "value": [1]}) == {"spec": {"replicas": 1, "x": [1]}}
    assert strategic(current, {"spec": None}) == {}
    assert current == {"spec": {"replicas": 1}}


@pytest.mark.parametrize(
    ("kind", "media", "body", "code", "expected"),
    [
        (CUSTOM, "text/plain", b"{}", 415, "accepted media types include: application/json-patch+json"),
        (CUSTOM, patch.STRATEGIC_MERGE_PATCH, b"{}", 415, "accepted media types include"),
        (SECRET, patch.APPLY_PATCH, b"a: b", 415, "kubectl apply works without --server-side"),
        (CUSTOM, patch.MERGE_PATCH, b"{", 400, "not valid JSON"),
        (CUSTOM, patch.MERGE_PATCH, b"[]", 400, "expected an object"),
        (CUSTOM, patch.JSON_PATCH, b"{}", 400, "expected a list of operations"),
        (CUSTOM, patch.JSON_PATCH, b"[1]", 400, "expected a list of operations"),
        (CUSTOM, patch.JSON_PATCH, b'[{"op": "dance", "path": "/a"}]', 400, "operation 0"),
        (CUSTOM, patch.JSON_PATCH, b'[{"op": "test", "path": "/a", "value": 2}]', 422, "operation 0 (test /a)"),
        (CUSTOM, patch.JSON_PATCH, b'[{"op": "remove", "path": "/z"}]', 422, "operation 0 (remove /z)"),
        (CUSTOM, patch.JSON_PATCH, b'[{"op": "add", "path": "/a/b/c", "value": 1}]', 422, "does not fit the object"),
        (CUSTOM, patch.JSON_PATCH, b'[{"op": "replace", "path": "", "value": 1}]', 422, "not an object"),
    ],
)
def test_patches_that_cannot_be_applied_say_why(kind: Any, media: str, body: bytes, code: int, expected: str) -> None:
    with pytest.raises(StatusError) as refused:
        patch.apply(kind, media, {"a": 1}, body)
    assert refused.value.code == code
    assert expected in refused.value.message


def test_small_patches_cannot_make_huge_objects() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 60
    with pytest.raises(StatusError) as refused:
        json_patch({"a": ["x" * 1000]}, *doubling)
    assert refused.value.code in (413, 422)
    nesting = [{"op": "copy", "from": "", "path": "/a"}] * 80
    with pytest.raises(StatusError):
        json_patch({"a": 1}, *nesting)
    with pytest.raises(StatusError) as refused:
        json_patch({}, *([{"op": "remove", "path": "/a"}] * 10_001))
    assert refused.value.code == 413


def test_a_strategic_merge_merges_finalizers_and_owners_and_replaces_other_lists() -> None:
    current = make("Namespace", metadata={"finalizers": ["a/a", "b/b"], "ownerReferences": [{"uid": "1", "name": "x"}]})
    current["spec"] = {"finalizers": ["kubernetes"]}
    change = {
        "metadata": {"finalizers": ["c/c"], "ownerReferences": [{"uid": "1", "name": "y"}, {"uid": "2"}]},
        "spec": {"finalizers": []},
    }
    result = strategic(current, change)
    assert result["metadata"]["finalizers"] == ["a/a", "b/b", "c/c"]
    assert result["metadata"]["ownerReferences"] == [{"uid": "1", "name": "y"}, {"uid": "2"}]
    assert result["spec"] == {"finalizers": []}


def test_directives_of_a_strategic_merge_are_followed() -> None:
    current = {"data": {"a": "1", "b": "2"}, "metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1"}]}}
    assert strategic(current, {"data": {"$patch": "replace", "c": "3"}})["data"] == {"c": "3"}
    assert strategic(current, {"data": {"$patch": "delete"}})["data"] == {}
    assert strategic(current, {"data": {"$retainKeys": ["a", "c"], "c": "3"}})["data"] == {"a": "1", "c": "3"}
    meta = {
        "$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"],
        "finalizers": ["c"],
    }
    assert strategic(current, {"metadata": meta})["metadata"]["finalizers"] == ["c", "b"]
    gone = {"ownerReferences": [{"uid": "1", "$patch": "delete"}], "$setElementOrder/ownerReferences": []}
    assert strategic(current, {"metadata": gone})["metadata"]["ownerReferences"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"$patch": "dance"}},
        {"data": {"$retainKeys": ["a"], "b": "1"}},
        {"data": {"$retainKeys": "a"}},
        {"metadata": {"finalizers": [1]}},
        {"metadata": {"finalizers": "a"}},
        {"metadata": {"ownerReferences": [{}]}},
        {"metadata": {"$deleteFromPrimitiveList/ownerReferences": [1]}},
    ],
)
def test_directives_that_cannot_be_followed_are_refused(change: Object) -> None:
    with pytest.raises(StatusError) as refused:
        strategic({"metadata": {}}, change)
    assert refused.value.code == 400


operations = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]) | json_values,
        "path": st.sampled_from(["", "/", "/a", "/a/0", "/a/-", "/b/c", "/b/~2", "/a/b/c"]) | json_values,
        "from": st.sampled_from(["", "/a", "/b", "/b/c"]) | json_values,
        "value": json_values,
    },
)
directives = st.dictionaries(
    st.sampled_from(
        ["metadata", "finalizers", "ownerReferences", "$patch", "$retainKeys", "$setElementOrder/finalizers",
         "$deleteFromPrimitiveList/finalizers", "$setElementOrder/ownerReferences", "a"]
    ),
    json_values | st.sampled_from(["replace", "delete", ["a"], [{"uid": "1"}]]),
    max_size=4,
)  # fmt: skip


@given(
    st.sampled_from([patch.JSON_PATCH, patch.MERGE_PATCH, patch.STRATEGIC_MERGE_PATCH]),
    json_values
    | st.lists(operations, max_size=4)
    | directives
    | directives.map(lambda value: {"metadata": value})
    | st.binary(max_size=20),
)
@settings(max_examples=120)
def test_any_patch_gives_an_object_or_a_status(media: str, change: Any) -> None:
    current = {
        "a": [1, {"b": 2}],
        "b": {"c": "text"},
        "metadata": {"finalizers": ["a"], "ownerReferences": [{"uid": "1"}]},
    }
    assert code_of(lambda: patch.apply(SECRET, media, current, change)) in (200, 400, 413, 422)
