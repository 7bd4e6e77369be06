"""JSON values from the network: bounded and normalized before anything looks at them."""

import json
import math
from collections import Counter
from typing import Any

from modelyard.control.apiserver.status import bad_request

MAX_DEPTH = 64
_LARGEST_INTEGER = 2**63
_EXACT_FLOAT = 2**53


def parse(text: bytes) -> Any:
    """A JSON document. Raises StatusError 400 for anything that is not strict JSON, repeats a field or is too deep."""
    try:
        return normal(json.loads(text, object_pairs_hook=_each_once))
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not valid JSON: {error}") from error


def normal(value: Any) -> Any:
    """A deep copy as Kubernetes would store it: whole numbers are integers. Raises StatusError 400.

    Refused: nesting deeper than 64, numbers beyond 64 bits, text that has no UTF-8 form, and NUL, at which other
    implementations cut a text off.
    """
    return _normal(value, 0, "")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise bad_request(f'strict decoding error: duplicate field "{_named(twice)}"')
    return found


def _normal(value: Any, depth: int, path: str) -> Any:
    if depth > MAX_DEPTH:
        raise bad_request(f"{path[:80]}...: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_text(key, path): _normal(item, depth + 1, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(item, depth + 1, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, str):
        return _text(value, path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise bad_request(f"{_named(path)}: not a finite number")
        return int(value) if value.is_integer() and abs(value) < _EXACT_FLOAT else value
    if isinstance(value, int):
        if not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            raise bad_request(f"{_named(path)}: the number does not fit into 64 bits")
        return value
    raise bad_request(f"{_named(path)}: {type(value).__name__} has no JSON form")


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise bad_request(f"{_named(path)}: keys must be text")
    if "\0" in value:
        raise bad_request(f"{_named(path)}: must not contain the character NUL")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise bad_request(f"{_named(path)}: is not valid Unicode text") from error
    return value


def _named(path: str) -> str:
    shown = path.removeprefix(".").encode(errors="replace").decode()
    return shown if len(shown) <= 200 else f"{shown[:200]}..."


def same(one: Any, other: Any) -> bool:
    """Equality as JSON has it: True is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
