"""Structural schemas at work: find and prune unknown fields, fill in defaults, validate.

Source: apiextensions.k8s.io/v1 JSONSchemaProps and apiextensions-apiserver pkg/apiserver/schema; messages as
k8s.io/kube-openapi and field.Error print them. Values are plain JSON (see `values.normal`); inputs are never changed.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

from modelyard.control.apiserver.status import Cause

Schema = dict[str, Any]

_LONGEST_MATCHED = 4096
"""Characters that a pattern is tried on where the schema sets no maxLength."""
_OPEN: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_NAMES: dict[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def unknown_fields(schema: Schema, obj: Any) -> list[str]:
    """Paths of all fields that pruning would drop, in the order of the object."""
    return list(_unknown(schema, obj, ""))


def prune(schema: Schema, obj: Any) -> Any:
    """The object without unknown fields."""
    if isinstance(obj, dict):
        kept: dict[str, Any] = {}
        for key, value in obj.items():
            part = _part(schema, key)
            if part is not None:
                kept[key] = prune(part, value)
        return kept
    if isinstance(obj, list):
        items = _items(schema)
        return [prune(items, each) for each in obj]
    return obj


def default(schema: Schema, obj: Any) -> Any:
    """The object with defaults. A null stands for an absent field unless the schema says nullable.

    Nothing is made for an absent parent that has no default of its own.
    """
    if isinstance(obj, dict):
        return _default_object(schema, obj)
    if isinstance(obj, list):
        items = _items(schema)
        return [default(items, each) for each in obj]
    return obj


def validate(schema: Schema, obj: Any) -> list[Cause]:
    """Every violated rule; an empty list for a valid object."""
    return list(_validate(schema, obj, ""))


def join(path: str, key: str) -> str:
    """Path of a field."""
    return f"{path}.{key}" if path else key


def _part(schema: Schema, key: str) -> Schema | None:
    """The schema of a field; None for an unknown one."""
    part: Schema | None = schema.get("properties", {}).get(key)
    if part is not None:
        return part
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return values
    return _OPEN if _is_open(schema) else None


def _items(schema: Schema) -> Schema:
    """The schema of a list's items; below preserved fields everything is preserved."""
    items: Schema = schema.get("items", _OPEN if _is_open(schema) else {})
    return items


def _is_open(schema: Schema) -> bool:
    return schema.get("x-kubernetes-preserve-unknown-fields") is True or schema.get("additionalProperties") is True


def _unknown(schema: Schema, obj: Any, path: str) -> Iterator[str]:
    if isinstance(obj, dict):
        for key, value in obj.items():
            part = _part(schema, key)
            if part is None:
                yield join(path, key)
            else:
                yield from _unknown(part, value, join(path, key))
    elif isinstance(obj, list):
        items = _items(schema)
        for index, each in enumerate(obj):
            yield from _unknown(items, each, f"{path}[{index}]")


def _default_object(schema: Schema, obj: dict[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for key, value in obj.items():
        part = _part(schema, key)
        if part is None or (value is None and _is_open(part)):
            filled[key] = value
        elif value is not None or part.get("nullable"):
            filled[key] = default(part, value)
    for key, part in schema.get("properties", {}).items():
        if key not in filled and part.get("default") is not None:
            filled[key] = default(part, part["default"])
    return filled


def _validate(schema: Schema, obj: Any, path: str) -> Iterator[Cause]:
    if obj is None and (schema.get("nullable") or _is_open(schema)):
        return
    expected = _expected_type(schema)
    if expected is not None and not _is_of_type(obj, expected):
        yield Cause.wrong_type(path, _NAMES[type(obj)], expected)
        return
    if "enum" in schema and obj not in schema["enum"]:
        yield Cause.unsupported(path, obj, schema["enum"])
    if isinstance(obj, str):
        yield from _validate_text(schema, obj, path)
    elif isinstance(obj, int | float) and not isinstance(obj, bool):
        yield from _validate_number(schema, obj, path)
    elif isinstance(obj, list):
        yield from _validate_list(schema, obj, path)
    elif isinstance(obj, dict):
        yield from _validate_object(schema, obj, path)


def _expected_type(schema: Schema) -> str | None:
    return "integer or string" if schema.get("x-kubernetes-int-or-string") else schema.get("type")


def _is_of_type(obj: Any, expected: str) -> bool:
    found = _NAMES[type(obj)]
    if expected == "integer or string":
        return found in ("integer", "string")
    return found == expected or (expected == "number" and found == "integer")


def _validate_text(schema: Schema, text: str, path: str) -> Iterator[Cause]:
    longest = schema.get("maxLength", _LONGEST_MATCHED if "pattern" in schema else None)
    if longest is not None and len(text) > longest:
        yield Cause.too_long(path, longest)
        return
    if len(text) < schema.get("minLength", 0):
        yield Cause.invalid(path, text, f"{path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not _compiled(schema["pattern"]).search(text):
        yield Cause.invalid(path, text, f"{path} in body should match '{schema['pattern']}'")
    form = schema.get("format")
    if form == "date-time" and not is_date_time(text):
        yield Cause.invalid(path, text, f"{path} in body must be of type date-time: {json.dumps(text)}")
    if form == "byte" and not is_base64(text):
        # the value is left out: it may be a secret
        yield Cause(path, "FieldValueInvalid", f"Invalid value: {path} in body must be of type byte: not valid base64")


def is_date_time(text: str) -> bool:
    """Whether text is an RFC 3339 time."""
    if not _DATE_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_base64(text: str) -> bool:
    """Whether text is standard base64 with padding; line breaks are allowed, as in Go."""
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _validate_number(schema: Schema, number: float, path: str) -> Iterator[Cause]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and (number < least or (schema.get("exclusiveMinimum") and number == least)):
        more = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        yield Cause.invalid(path, number, f"{path} in body should be {more} {least}")
    if most is not None and (number > most or (schema.get("exclusiveMaximum") and number == most)):
        less = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        yield Cause.invalid(path, number, f"{path} in body should be {less} {most}")
    if schema.get("multipleOf") and number % schema["multipleOf"]:
        yield Cause.invalid(path, number, f"{path} in body should be a multiple of {schema['multipleOf']}")
    if schema.get("format") == "int32" and not -(2**31) <= number < 2**31:
        yield Cause.invalid(path, number, f"{path} in body must be of type int32: {json.dumps(str(number))}")


def _validate_list(schema: Schema, items: list[Any], path: str) -> Iterator[Cause]:
    if len(items) > schema.get("maxItems", len(items)):
        yield Cause.too_many(path, len(items), schema["maxItems"])
        return
    if len(items) < schema.get("minItems", 0):
        yield Cause.invalid(path, len(items), f"{path} in body should have at least {schema['minItems']} items")
    part = _items(schema)
    for index, each in enumerate(items):
        yield from _validate(part, each, f"{path}[{index}]")
    yield from _duplicates(schema, items, path)


def _duplicates(schema: Schema, items: list[Any], path: str) -> Iterator[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("map", "set"):
        return
    seen: set[str] = set()
    for index, each in enumerate(items):
        if kind == "map":
            if not isinstance(each, dict):
                continue
            each = {key: each[key] for key in schema["x-kubernetes-list-map-keys"] if key in each}
        identity = json.dumps(each, sort_keys=True)
        if identity in seen:
            yield Cause.duplicate(f"{path}[{index}]", each)
        seen.add(identity)


def _validate_object(schema: Schema, obj: dict[str, Any], path: str) -> Iterator[Cause]:
    if len(obj) > schema.get("maxProperties", len(obj)):
        yield Cause.too_many(path, len(obj), schema["maxProperties"])
        return
    if len(obj) < schema.get("minProperties", 0):
        detail = f"{path} in body should have at least {schema['minProperties']} properties"
        yield Cause.invalid(path, len(obj), detail)
    for key in schema.get("required", ()):
        if key not in obj:
            yield Cause.required(join(path, key))
    for key, value in obj.items():
        part = _part(schema, key)
        if part is not None:
            yield from _validate(part, value, join(path, key))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """An RE2 pattern in Python's dialect: `$` ends the text (never before a last newline), classes are ASCII."""
    converted = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", _end_of_text, pattern)
    return re.compile(converted, re.ASCII)


def _end_of_text(match: re.Match[str]) -> str:
    return r"\Z" if match[0] == "$" else match[0]
