"""What a value of free form may be: checks that name every field which is not allowed, all at once."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modelyard.base.errors import FieldError

Check = Callable[[str, Any], Iterator[FieldError]]
"""(path, value) -> what is wrong there."""

_MAX_DEPTH = 24
_MAX_ITEMS = 256


def text(path: str, value: Any) -> Iterator[FieldError]:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        yield FieldError(path, f"expected a text, found {_found(value)}")


def words(path: str, value: Any) -> Iterator[FieldError]:
    """A text that may be empty."""
    if not isinstance(value, str):
        yield FieldError(path, f"expected a text, found {_found(value)}")


def flag(path: str, value: Any) -> Iterator[FieldError]:
    """true or false."""
    if not isinstance(value, bool):
        yield FieldError(path, f"expected true or false, found {_found(value)}")


def number(least: int = 0) -> Check:
    """A whole number."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if isinstance(value, bool) or not isinstance(value, int):
            yield FieldError(path, f"expected a whole number, found {_found(value)}")
        elif value < least:
            yield FieldError(path, f"must be at least {least}")

    return check


def only(*allowed: Any) -> Check:
    """One of these values, of the same type."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        if not any(type(value) is type(each) and value == each for each in allowed):
            yield FieldError(path, f"must be {' or '.join(map(_spelled, allowed))}")

    return check


def whatever(path: str, value: Any) -> Iterator[FieldError]:
    """An object whose fields are Kubernetes' business. No directives of a patch, and nothing that takes fields away."""
    yield from _object(path, value)
    yield from _plain(path, value, _MAX_DEPTH)


def texts(path: str, value: Any) -> Iterator[FieldError]:
    """An object of texts."""
    yield from _object(path, value)
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from _named(path, key)
        yield from words(_join(path, key), each)


def listed(check: Check) -> Check:
    """A list."""

    def checked(path: str, value: Any) -> Iterator[FieldError]:
        if not isinstance(value, list):
            yield FieldError(path, f"expected a list, found {_found(value)}")
        elif len(value) > _MAX_ITEMS:
            yield FieldError(path, f"has {len(value)} items, at most {_MAX_ITEMS} are allowed")
        else:
            for index, each in enumerate(value):
                yield from check(f"{path}[{index}]", each)

    return checked


def shape(
    fields: Mapping[str, Check], *, needed: tuple[str, ...] = (), hints: Mapping[str, str] | None = None
) -> Check:
    """An object with these fields and no others. hints: what to do instead of setting others."""

    def check(path: str, value: Any) -> Iterator[FieldError]:
        yield from _object(path, value)
        if not isinstance(value, dict):
            return
        for name in needed:
            if name not in value:
                yield FieldError(_join(path, name), "is required")
        for name, each in value.items():
            found = fields.get(name) if isinstance(name, str) else None
            if found is None:
                yield FieldError(_join(path, name), (hints or {}).get(name, "is not allowed"))
            else:
                yield from found(_join(path, name), each)

    return check


def _object(path: str, value: Any) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(path, f"expected an object, found {_found(value)}")


def _plain(path: str, value: Any, depth: int) -> Iterator[FieldError]:
    if not depth:
        yield FieldError(path, f"is nested deeper than {_MAX_DEPTH} levels")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _named(path, key)
            yield from _plain(_join(path, key), each, depth - 1)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _plain(f"{path}[{index}]", each, depth - 1)
    elif value is None:
        yield FieldError(path, "must not be null: leave it out")


def _named(path: str, key: Any) -> Iterator[FieldError]:
    """`$patch` and its like would take away what was made."""
    if not isinstance(key, str) or key.startswith("$"):
        yield FieldError(_join(path, key), "is not allowed")


def _join(path: str, key: Any) -> str:
    plain = isinstance(key, str) and key and all(each.isalnum() or each in "-_" for each in key)
    return f"{path}.{key}" if plain else f"{path}[{str(key)[:64]!r}]"


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _found(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "a number"),
        (float, "a number"),
        (str, "a text" if value else "an empty text"),
        (list, "a list"),
        (dict, "an object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")
