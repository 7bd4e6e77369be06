"""Expressions of the Common Expression Language as syntax trees, for Envoy: nothing in them is ever read from text.

Who builds one makes it total: an expression that fails means "no limit" to Envoy. So ask first whether something is
there (`metadata`), and of which type.
Source: CEL's language definition; google/api/expr/v1alpha1/syntax.proto.
"""

from functools import reduce
from typing import Any

Json = dict[str, Any]

_METADATA = {"select_expr": {"operand": {"ident_expr": {"name": "metadata"}}, "field": "filter_metadata"}}


def text(value: str) -> Json:
    """A string."""
    return {"const_expr": {"string_value": value}}


def truth(value: bool) -> Json:
    """true or false."""
    return {"const_expr": {"bool_value": value}}


def every(*expressions: Json) -> Json:
    """All of them hold; a later one is looked at only where the earlier ones do."""
    return reduce(lambda one, other: _call("_&&_", one, other), expressions)


def some(*expressions: Json) -> Json:
    """One of them holds."""
    return reduce(lambda one, other: _call("_||_", one, other), expressions)


def no(expression: Json) -> Json:
    """It does not hold."""
    return _call("!_", expression)


def equal(one: Json, other: Json) -> Json:
    """They are the same; of one type."""
    return _call("_==_", one, other)


def contains(container: Json, element: Json) -> Json:
    """A list has such an element, or a map such a key."""
    return _call("@in", element, container)


def is_text(value: Json) -> Json:
    """It is a string."""
    return equal(_call("type", value), _call("type", text("")))


def is_list(value: Json) -> Json:
    """It is a list."""
    return equal(_call("type", value), _call("type", {"list_expr": {}}))


def is_bool(value: Json) -> Json:
    """It is true or false."""
    return equal(_call("type", value), _call("type", truth(True)))


def metadata(*path: str) -> tuple[Json, Json]:
    """-> whether there is something at this path of the request's dynamic metadata, and what."""
    at, present = _METADATA, list[Json]()
    for each in path:
        if present:  # what stands there may be anything: to ask a string for a key would fail
            present.append(equal(_call("type", at), _call("type", {"struct_expr": {}})))
        present.append(contains(at, text(each)))
        at = _call("_[_]", at, text(each))
    return every(*present), at


def _call(function: str, *arguments: Json) -> Json:
    return {"call_expr": {"function": function, "args": list(arguments)}}
