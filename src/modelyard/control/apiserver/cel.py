"""x-kubernetes-validations: rules in the Common Expression Language over one object.

Source: KEP-2876 (validation rules, transition rules). Rules see plain JSON (strings of any format are
strings) and core CEL; of the libraries of Kubernetes only `sum` of a list of numbers. At the root, metadata shows name
and generateName only.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from cel_expr_python import cel

from modelyard.control.apiserver.schema import join
from modelyard.control.apiserver.status import Cause

Schema = dict[str, Any]
ROOT = "<nil>"
"""How Kubernetes prints the path of a rule of the whole object."""

_BLOCKING = frozenset({"FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"})
_UNCHECKED = Cause(
    ROOT,
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)


class _Place(NamedTuple):
    schema: Schema
    new: Any
    old: Any
    has_old: bool
    path: str


def check(schema: Schema, new: Any, old: Any | None, found: Iterable[Cause] = ()) -> list[Cause]:
    """Every rule that does not hold. Transition rules (oldSelf) run only where an old value exists.

    found: what validation found before. A rule that could stumble over one of those (wrong type, missing, too long)
    is left out, and that is said.
    """
    blocked = tuple(cause.field for cause in found if cause.reason in _BLOCKING)
    causes: list[Cause] = []
    unchecked = False
    for place in _places(_Place(schema, new, old, old is not None, "")):
        if any(_is_within(field, place.path) for field in blocked):
            unchecked = True
            continue
        causes.extend(_check(place))
    return [*causes, _UNCHECKED] if unchecked else causes


def _is_within(field: str, path: str) -> bool:
    return not path or field == path or field.startswith((f"{path}.", f"{path}["))


def _places(place: _Place) -> Iterator[_Place]:
    """All values whose schema has rules, with the old value that each is compared to."""
    schema, new, old, has_old, path = place
    if schema.get("x-kubernetes-validations"):
        yield place
    if isinstance(new, dict):
        known = old if isinstance(old, dict) else {}
        for key, value in new.items():
            part = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(part, dict):
                yield from _places(_Place(part, value, known.get(key), has_old and key in known, join(path, key)))
    elif isinstance(new, list) and isinstance(schema.get("items"), dict):
        before = _by_key(schema, old)
        for index, value in enumerate(new):
            key = _key(schema, value)
            has_before = has_old and key in before
            yield from _places(_Place(schema["items"], value, before.get(key), has_before, f"{path}[{index}]"))


def _by_key(schema: Schema, old: Any) -> dict[tuple[str, ...], Any]:
    """Items of a keyed list; items of other lists have no old value."""
    if not isinstance(old, list) or schema.get("x-kubernetes-list-type") != "map":
        return {}
    return {_key(schema, item): item for item in old}


def _key(schema: Schema, item: Any) -> tuple[str, ...]:
    if not isinstance(item, dict):
        return ()
    return tuple(repr(item.get(key)) for key in schema.get("x-kubernetes-list-map-keys", ()))


def _check(place: _Place) -> Iterator[Cause]:
    data = {"self": place.new, **({"oldSelf": place.old} if place.has_old else {})}
    activation = _environment().Activation(data)
    for rule in place.schema["x-kubernetes-validations"]:
        text = rule["rule"]
        if "oldSelf" in text and not place.has_old:
            continue
        failure = _failure(text, activation)
        if failure == "":
            continue
        detail = _message(rule, activation) if failure is None else f"{failure} evaluating rule: {text}"
        yield _cause(rule, place, detail)


def _failure(rule: str, activation: cel.Activation) -> str | None:
    """Empty: the rule holds. None: it does not. Otherwise why it could not be evaluated."""
    try:
        result = _program(rule).eval(activation)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    if result.type() == cel.Type.BOOL:
        return "" if result.value() else None
    return str(result.plain_value()) if result.type() == cel.Type.ERROR else "not true or false"


def _message(rule: Schema, activation: cel.Activation) -> str:
    if "messageExpression" in rule:
        try:
            result = _program(rule["messageExpression"]).eval(activation)
        except RuntimeError:
            pass  # as in Kubernetes: an expression that fails leaves the plain message
        else:
            text = result.plain_value()
            if result.type() == cel.Type.STRING and isinstance(text, str) and text.strip():
                return text
    return str(rule.get("message") or f"failed rule: {rule['rule']}")


def _cause(rule: Schema, place: _Place, detail: str) -> Cause:
    path = place.path + rule.get("fieldPath", "")
    path = path.removeprefix(".") or ROOT
    reason = rule.get("reason", "FieldValueInvalid")
    if reason == "FieldValueRequired":
        return Cause.required(path, detail)
    if reason == "FieldValueForbidden":
        return Cause.forbidden(path, detail)
    shown = place.schema.get("type", "object")
    if reason == "FieldValueDuplicate":
        return Cause.duplicate(path, shown)
    return Cause.invalid(path, shown, detail)


@cache
def _environment() -> cel.Env:
    numbers = cel.Overload("list_sum", cel.Type.DYN, [cel.Type.LIST], is_member=True, impl=_sum)
    return cel.NewEnv(
        variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}, functions=[cel.FunctionDecl("sum", [numbers])]
    )


def _sum(numbers: list[Any]) -> Any:
    """What it raises becomes the rule's error."""
    return sum(numbers)


@cache
def _program(rule: str) -> cel.Expression:
    """Rules come from our own definitions, so the cache is as large as they are."""
    return _environment().compile(rule)
