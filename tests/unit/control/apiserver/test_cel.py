from typing import Any

import pytest
from hypothesis import given, settings

from apiserver_testing import CUSTOM, json_values
from modelyard.control.apiserver import cel
from modelyard.control.apiserver.status import Cause, StatusError
from modelyard.control.apiserver.values import normal


def ruled(**rule: str) -> dict[str, Any]:
    return {"type": "object", "x-kubernetes-validations": [rule]}


def test_a_rule_that_does_not_hold_is_told_with_its_message() -> None:
    schema = {"properties": {"a": ruled(rule="has(self.x) != has(self.y)", message="set exactly one of x and y")}}
    assert cel.check(schema, {"a": {"x": 1}}, None) == []
    expected = Cause("a", "FieldValueInvalid", 'Invalid value: "object": set exactly one of x and y')
    assert cel.check(schema, {"a": {}}, None) == [expected]


def test_transition_rules_run_only_where_an_old_value_exists() -> None:
    schema = {
        "properties": {
            "a": {
                "type": "string",
                **ruled(rule="self == oldSelf"),
            }
        }
    }
    assert cel.check(schema, {"a": "1"}, None) == []
    assert cel.check(schema, {"a": "1"}, {}) == []
    assert cel.check(schema, {"a": "1"}, {"a": "1"}) == []
    assert [cause.field for cause in cel.check(schema, {"a": "1"}, {"a": "2"})] == ["a"]


def test_items_of_keyed_lists_are_compared_with_their_predecessors_and_others_not() -> None:
    items = ruled(rule="self.v == oldSelf.v")
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": items}
    old = [{"k": "a", "v": 1}, {"k": "b", "v": 2}]
    new = [{"k": "c", "v": 0}, {"k": "b", "v": 3}, {"k": "a", "v": 1}]
    assert [cause.field for cause in cel.check({"properties": {"l": keyed}}, {"l": new}, {"l": old})] == ["l[1]"]
    assert cel.check({"properties": {"l": {"items": items}}}, {"l": new}, {"l": old}) == []


def test_values_of_maps_have_rules_too() -> None:
    schema = {"additionalProperties": {"type": "integer", **ruled(rule="self > 1", message="too few")}}
    assert [cause.field for cause in cel.check(schema, {"a": 1, "b": 2}, None)] == ["a"]


@pytest.mark.parametrize(("numbers", "holds"), [([40, 60], True), ([99.5, 0.5], True), ([], False), ([99], False)])
def test_numbers_of_a_list_are_added_up(numbers: list[float], holds: bool) -> None:
    schema = {"properties": {"a": ruled(rule="self.sum() == 100", message="not all") | {"type": "array"}}}
    found = [cause.message for cause in cel.check(schema, {"a": numbers}, None)]
    assert found == ([] if holds else ['Invalid value: "array": not all'])


def test_what_cannot_be_added_up_is_an_error() -> None:
    (cause,) = cel.check(ruled(rule="self.a.sum() == 1"), {"a": ["x"]}, None)
    assert "evaluating rule: self.a.sum() == 1" in cause.message


@pytest.mark.parametrize("rule", ["self.missing == 1", "self.a + 1 == 2", "1 / 0 == 1", "nonsense(", "self.a"])
def test_a_rule_that_cannot_be_evaluated_is_an_error_that_names_it(rule: str) -> None:
    (cause,) = cel.check(ruled(rule=rule, message="never shown"), {"a": "text"}, None)
    assert cause.field == "<nil>"
    assert cause.message.endswith(f"evaluating rule: {rule}")


def test_message_expressions_win_unless_they_fail() -> None:
    rule = {"rule": "self.a < 2", "message": "plain"}
    good = ruled(**rule, messageExpression="'a is ' + string(self.a)")
    bad = ruled(**rule, messageExpression="self.nothing")
    assert cel.check(good, {"a": 3}, None)[0].message == 'Invalid value: "object": a is 3'
    assert cel.check(bad, {"a": 3}, None)[0].message == 'Invalid value: "object": plain'
    assert cel.check(ruled(rule="false"), {}, None)[0].message == 'Invalid value: "object": failed rule: false'


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("FieldValueInvalid", 'Invalid value: "object": no'),
        ("FieldValueForbidden", "Forbidden: no"),
        ("FieldValueRequired", "Required value: no"),
        ("FieldValueDuplicate", 'Duplicate value: "object"'),
    ],
)
def test_reason_and_field_path_of_a_rule_are_used(reason: str, message: str) -> None:
    rule = ruled(rule="false", message="no", reason=reason, fieldPath=".name")
    assert cel.check({"properties": {"a": rule}}, {"a": {}}, None) == [Cause("a.name", reason, message)]


def test_rules_over_broken_values_are_left_out_and_that_is_said() -> None:
    schema = {"properties": {"a": ruled(rule="self.x > 1"), "b": ruled(rule="false", message="told")}}
    wrong = Cause.wrong_type("a.x", "string", "integer")
    (unchecked,) = (
        cause for cause in cel.check(schema, {"a": {"x": ""}, "b": {}}, None, [wrong]) if cause.field != "b"
    )
    assert unchecked.field == "<nil>"
    assert "some validation rules were not checked" in unchecked.message


@given(json_values)
@settings(max_examples=60)
def test_rules_of_our_kinds_never_raise_whatever_they_see(value: Any) -> None:
    try:
        seen = normal({"metadata": {"name": "a"}, "spec": {"model": value, "env": value, "uri": value}})
    except StatusError:
        return
    for kind in CUSTOM:
        cel.check(kind.schema or {}, seen, seen)
