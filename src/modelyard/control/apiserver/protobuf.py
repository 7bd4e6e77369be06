"""Kubernetes protobuf bodies -> JSON objects, for the few kinds that kubectl creates only this way.

`kubectl create namespace|configmap|secret|role|token ...` and `kubectl auth` send nothing else and do not fall back.
Source: the envelope in k8s.io/apimachinery pkg/runtime/types_proto.go.
"""

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from modelyard.control.apiserver.protobuf_kinds import KINDS, Field
from modelyard.control.apiserver.status import bad_request, unsupported_media

Object = dict[str, Any]
_MAGIC = b"k8s\x00"


def decode(data: bytes) -> Object:
    """The object in an envelope. Raises StatusError 400 for damaged bytes, 415 for a kind that must be sent as JSON."""
    if not data.startswith(_MAGIC):
        raise bad_request("the body is no Kubernetes protobuf: it does not start with its mark")
    try:
        unknown = dict(_fields(data[len(_MAGIC) :]))
        api_version, kind = _type_meta(_message(unknown.get(1, b"")))
        known = KINDS.get((api_version, kind))
        if known is None:
            raise unsupported_media(f"{api_version} {kind} cannot be read as protobuf: send application/json")
        found = _object(_message(unknown.get(2, b"")), known)
    except (ValueError, OverflowError, OSError) as error:
        raise bad_request(f"the body is not valid protobuf: {error}") from error
    return {"apiVersion": api_version, "kind": kind, "metadata": {}, **found}


def _type_meta(data: bytes) -> tuple[str, str]:
    found = dict(_fields(data))
    return _text(found.get(1, b"")), _text(found.get(2, b""))


def _object(data: bytes, shape: Mapping[int, Field]) -> Object:
    found: Object = {}
    for number, value in _fields(data):
        each = shape.get(number)
        if each is None:
            continue  # a newer field: JSON bodies would report it, here its name is not known
        if each.shape in ("texts", "bytes map"):
            key, item = _entry(_message(value))
            found.setdefault(each.name, {})[key] = _text(item) if each.shape == "texts" else _base64(item)
        elif each.repeated:
            found.setdefault(each.name, []).append(_value(value, each))
        else:
            parsed = _value(value, each)
            if parsed not in ("", None, {}):  # Go writes empty texts and structs; in JSON they are absent
                found[each.name] = parsed
    return found


def _value(value: int | bytes, each: Field) -> Any:
    match each.shape:
        case "flag":
            return _number(value) != 0
        case "integer":
            return _number(value)
        case "message":
            return _object(_message(value), each.message)
        case "time":
            seconds = dict(_fields(_message(value))).get(1)
            return None if seconds is None else _stamp(_number(seconds))
        case _:
            return _text(value)


def _stamp(seconds: int) -> str | None:
    # Go's zero time, which stands for "not set", lies in the year 1.
    return None if seconds <= 0 else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry(data: bytes) -> tuple[str, bytes]:
    found = dict(_fields(data))
    return _text(found.get(1, b"")), _message(found.get(2, b""))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            size, position = _varint(data, position)
            if size > len(data) - position:
                raise ValueError("a field is longer than its message")
            yield number, data[position : position + size]
            position += size
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
            if position > len(data):
                raise ValueError("a number is cut off")
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise ValueError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("expected a number")
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("expected bytes")
    return value


def _text(value: int | bytes) -> str:
    return _message(value).decode()


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
