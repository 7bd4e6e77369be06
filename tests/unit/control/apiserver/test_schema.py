from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import CUSTOM, KINDS, code_of, json_values, model, service
from modelyard.control.apiserver import schema, values
from modelyard.control.apiserver.status import Cause, StatusError

SERVICE = KINDS["ModelService"].schema or {}


def found(part: dict[str, Any], value: Any) -> list[str]:
    """`path reason` of every violated rule of a value below `x`."""
    causes = schema.validate({"type": "object", "properties": {"x": part}}, {"x": value})
    return [f"{cause.field} {cause.reason.removeprefix('FieldValue')}" for cause in causes]


@pytest.mark.parametrize(
    ("part", "good", "bad", "expected"),
    [
        ({"type": "string"}, "a", 1, "x TypeInvalid"),
        ({"type": "string"}, "a", None, "x TypeInvalid"),
        ({"type": "integer"}, 1, True, "x TypeInvalid"),
        ({"type": "integer"}, 1, "1", "x TypeInvalid"),
        ({"type": "integer"}, 1, 1.5, "x TypeInvalid"),
        ({"type": "number"}, 1, "1", "x TypeInvalid"),
        ({"type": "boolean"}, True, 1, "x TypeInvalid"),
        ({"type": "object"}, {}, [], "x TypeInvalid"),
        ({"type": "array", "items": {"type": "string"}}, ["a"], ["a", 1], "x[1] TypeInvalid"),
        ({"type": "string", "nullable": True}, None, 1, "x TypeInvalid"),
        ({"type": "string", "enum": ["a", "b"]}, "a", "c", "x NotSupported"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "aab", "x Invalid"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "aa\n", "x Invalid"),
        ({"type": "string", "pattern": "^[^$]$"}, "a", "$", "x Invalid"),
        ({"type": "string", "pattern": "^\\d$"}, "1", "\u0661", "x Invalid"),
        ({"type": "string", "pattern": "a"}, "xax", "a" * 5000, "x TooLong"),
        ({"type": "string", "minLength": 1}, "a", "", "x Invalid"),
        ({"type": "string", "maxLength": 2}, "ää", "abc", "x TooLong"),
        ({"type": "string", "format": "date-time"}, "2026-01-02T03:04:05Z", "yesterday", "x Invalid"),
        ({"type": "string", "format": "date-time"}, "2026-01-02T03:04:05.123456Z", "2026-13-02T03:04:05Z", "x Invalid"),
        ({"type": "string", "format": "byte"}, "Yg==", "Yg", "x Invalid"),
        ({"type": "integer", "format": "int32"}, -(2**31), 2**31, "x Invalid"),
        ({"type": "integer", "minimum": 1, "maximum": 3}, 3, 0, "x Invalid"),
        ({"type": "integer", "minimum": 1, "maximum": 3}, 1, 4, "x Invalid"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 2, 1, "x Invalid"),
        ({"type": "integer", "maximum": 1, "exclusiveMaximum": True}, 0, 1, "x Invalid"),
        ({"type": "integer", "multipleOf": 4}, 8, 9, "x Invalid"),
        ({"type": "array", "maxItems": 1}, [1], [1, 2], "x TooMany"),
        ({"type": "array", "minItems": 1}, [1], [], "x Invalid"),
        ({"type": "array", "x-kubernetes-list-type": "set"}, [1, "1"], [1, 1], "x[1] Duplicate"),
        ({"type": "object", "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 1}, "x TooMany"),
        ({"type": "object", "minProperties": 1}, {"a": 1}, {}, "x Invalid"),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}, "x.a Required"),
        ({"x-kubernetes-int-or-string": True}, "1", 1.5, "x TypeInvalid"),
        ({"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+$"}, 1, "a", "x Invalid"),
    ],
)
def test_each_constraint_accepts_what_fits_and_names_what_does_not(
    part: dict[str, Any], good: Any, bad: Any, expected: str
) -> None:
    assert found(part, good) == []
    assert found(part, bad) == [expected]


def test_messages_are_those_of_kubernetes() -> None:
    obj = service(replicas=2000, timeout="soon", runtime=3, env=[{"name": "A"}, {"name": "A"}])
    del obj["spec"]["model"]
    assert schema.validate(SERVICE, {"spec": obj["spec"]}) == [
        Cause("spec.model", "FieldValueRequired", "Required value"),
        Cause(
            "spec.replicas",
            "FieldValueInvalid",
            "Invalid value: 2000: spec.replicas in body should be less than or equal to 1000",
        ),
        Cause(
            "spec.timeout",
            "FieldValueInvalid",
            "Invalid value: \"soon\": spec.timeout in body should match '^([0-9]{1,8}(ms|s|m|h)){1,4}$'",
        ),
        Cause(
            "spec.runtime",
            "FieldValueTypeInvalid",
            'Invalid value: "integer": spec.runtime in body must be of type string: "integer"',
        ),
        Cause("spec.env[1]", "FieldValueDuplicate", 'Duplicate value: {"name":"A"}'),
    ]


def test_unknown_fields_are_named_with_their_paths_and_pruned() -> None:
    obj = {
        "spec": {"model": {"name": "a", "nmae": "b"}, "env": [{"name": "A", "x": 1}], "resources": {"limits": {"y": 1}}}
    }
    assert schema.unknown_fields(SERVICE, {**obj, "extra": 1}) == ["spec.model.nmae", "spec.env[0].x", "extra"]
    assert schema.prune(SERVICE, {**obj, "extra": 1}) == {
        "spec": {"model": {"name": "a"}, "env": [{"name": "A"}], "resources": {"limits": {"y": 1}}}
    }


def test_preserved_parts_keep_every_field_and_declared_ones_are_still_pruned() -> None:
    part = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    obj = {"free": {"deep": [None]}, "known": {"a": "b", "c": "d"}}
    assert schema.unknown_fields(part, obj) == ["known.c"]
    assert schema.default(part, schema.prune(part, obj)) == {"free": {"deep": [None]}, "known": {"a": "b"}}


def test_defaults_fill_existing_parents_only_and_replace_nulls() -> None:
    part = {
        "type": "object",
        "properties": {
            "a": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
            "c": {"type": "object", "default": {}, "properties": {"d": {"type": "boolean", "default": False}}},
            "e": {"type": "string"},
            "f": {"type": "string", "nullable": True},
        },
    }
    assert schema.default(part, {}) == {"c": {"d": False}}
    assert schema.default(part, {"a": {"b": None}, "e": None, "f": None}) == {
        "a": {"b": 1},
        "f": None,
        "c": {"d": False},
    }


def test_defaults_are_not_shared_between_objects() -> None:
    part = {"type": "object", "properties": {"a": {"type": "array", "default": [1], "items": {"type": "integer"}}}}
    first = schema.default(part, {})
    first["a"].append(2)
    assert schema.default(part, {}) == {"a": [1]}


specs = st.fixed_dictionaries(
    {"model": json_values},
    optional=dict.fromkeys(("replicas", "env", "resources", "timeout", "runtime", "other"), json_values),
)


@given(st.dictionaries(st.sampled_from(["spec", "status", "other"]), specs | json_values))
@settings(max_examples=30)
def test_pruning_and_defaulting_anything_twice_changes_nothing_more(obj: Any) -> None:
    for kind in CUSTOM:
        assert kind.schema is not None
        pruned = schema.prune(kind.schema, obj)
        assert schema.unknown_fields(kind.schema, pruned) == []
        filled = schema.default(kind.schema, pruned)
        assert repr(schema.prune(kind.schema, pruned)) == repr(pruned)  # NaN is not equal to itself
        assert repr(schema.default(kind.schema, filled)) == repr(filled)
        schema.validate(kind.schema, filled)


@given(
    st.integers(0, 1000),
    st.sampled_from(["1s", "2m30s", "500ms"]),
    st.sampled_from([None, {}, {"limits": {"cpu": "1"}}]),
)
@settings(max_examples=25)
def test_a_valid_object_stays_valid_when_pruned_and_defaulted(replicas: int, timeout: str, resources: Any) -> None:
    obj = {"spec": service(replicas=replicas, timeout=timeout, resources=resources)["spec"]}
    stored = schema.default(SERVICE, schema.prune(SERVICE, obj))
    assert schema.validate(SERVICE, stored) == []
    assert stored["spec"]["replicas"] == replicas


def patterns(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["pattern"]} if isinstance(part.get("pattern"), str) else set()
        return own.union(*(patterns(value) for value in part.values()))
    return set().union(*(patterns(value) for value in part)) if isinstance(part, list) else set()


PATTERNS = sorted(set().union(*(patterns(kind.schema) for kind in CUSTOM)))


@given(st.sampled_from(PATTERNS), st.text(alphabet="aZ09-_.:/+esmhKi\n $", max_size=12) | st.text(max_size=5))
@settings(max_examples=150)
def test_patterns_decide_as_re2_does(pattern: str, text: str) -> None:
    expected = re2.search(pattern, text) is not None
    assert (found({"type": "string", "pattern": pattern}, text) == []) == expected


@given(json_values)
@settings(max_examples=60)
def test_normalizing_refuses_or_gives_plain_bounded_json(value: Any) -> None:
    code = code_of(lambda: values.normal(value))
    assert code in (200, 400)
    if code == 200:
        assert values.normal(values.normal(value)) == values.normal(value)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b'"\\ud800"', b'"a\\u0000"', b"1e999", b'{"a": 1, "a": 1}'],
)
def test_bodies_that_are_no_strict_json_are_bad_requests(body: bytes) -> None:
    with pytest.raises(StatusError) as refused:
        values.parse(body)
    assert refused.value.code == 400


def test_whole_numbers_become_integers() -> None:
    assert repr(values.parse(b'{"a": [1.0, 1.5, -0.0]}')) == "{'a': [1, 1.5, 0]}"


def test_models_are_valid_with_every_field() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    obj = model(format="onnx", trust="pickle", inputs=[tensor], outputs=[tensor])
    assert schema.validate(KINDS["Model"].schema or {}, {"spec": obj["spec"]}) == []
