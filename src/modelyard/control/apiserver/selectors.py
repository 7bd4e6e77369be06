"""Label and field selectors of lists and watches.

Source: k8s.io/apimachinery pkg/labels/selector.go (grammar) and pkg/fields/selector.go.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.names import label_value_faults, qualified_name_faults
from modelyard.control.apiserver.status import StatusError, bad_request

LabelSelector = Callable[[Mapping[str, str]], bool]
FieldSelector = Callable[[dict[str, Any]], bool]

_LONGEST = 16384
_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)|\s+$")
_SYMBOLS = frozenset("=!(),<>") | {"==", "!="}
_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS: dict[str, tuple[str, ...]] = {
    "Event": (*(f"involvedObject.{each}" for each in _REFERENCE), "reason", "type", "source", "reportingComponent"),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
}


class _Requirement(NamedTuple):
    key: str
    operator: str
    values: frozenset[str]

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
        return _compare(value, self.operator, next(iter(self.values)))


def labels(text: str) -> LabelSelector:
    """Whether labels match, e.g. `app=iris,tier in (a, b),!old`. Raises StatusError 400."""
    requirements = tuple(_Parser(_bounded(text)).requirements())
    return lambda found: all(each.holds(found) for each in requirements)


def fields(text: str, kind: Kind) -> FieldSelector:
    """Whether an object matches, e.g. `metadata.name=iris`. Raises StatusError 400, also for fields not served."""
    terms = tuple(_term(part, kind) for part in _split(_bounded(text)) if part)
    return lambda obj: all((_field(obj, path) == value) == equal for path, equal, value in terms)


def _bounded(text: str) -> str:
    if len(text) > _LONGEST:
        raise bad_request(f"a selector may not be longer than {_LONGEST} characters")
    return text


def _compare(value: str | None, operator: str, bound: str) -> bool:
    try:
        return value is not None and (int(value) > int(bound) if operator == ">" else int(value) < int(bound))
    except ValueError:
        return False


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._at = 0

    def requirements(self) -> Iterator[_Requirement]:
        if not self._tokens:
            return
        while True:
            yield self._requirement()
            found = self._next()
            if not found:
                return
            if found != ",":
                raise self._error(found, "',' or the end")

    def _requirement(self) -> _Requirement:
        if self._peek() == "!":
            self._next()
            return _Requirement(self._key(), "!", frozenset())
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return _Requirement(key, "exists", frozenset())
        self._next()
        if operator in ("in", "notin"):
            return _Requirement(key, operator, self._values())
        if operator in ("=", "==", "!="):
            value = self._value()
            return _Requirement(key, "notin" if operator == "!=" else "in", frozenset({value}))
        if operator in (">", "<"):
            bound = self._value()
            if not re.fullmatch(r"-?[0-9]{1,18}", bound):
                raise self._error(bound, "an integer")
            return _Requirement(key, operator, frozenset({bound}))
        raise self._error(operator, "one of in, notin, =, ==, !=, >, <")

    def _key(self) -> str:
        token = self._next()
        if token == "" or token in _SYMBOLS:
            raise self._error(token, "a label key")
        for fault in qualified_name_faults(token):
            raise _unparsable(f"key: Invalid value: {token!r}: {fault}")
        return token

    def _value(self) -> str:
        token = self._peek()
        if token in ("", ",", ")"):
            return ""
        if token in _SYMBOLS:
            raise self._error(token, "a value")
        for fault in label_value_faults(token):
            raise _unparsable(f"values: Invalid value: {token!r}: {fault}")
        return self._next()

    def _values(self) -> frozenset[str]:
        if (found := self._next()) != "(":
            raise self._error(found, "'('")
        values = {self._value()}
        while (found := self._next()) == ",":
            values.add(self._value())
        if found != ")":
            raise self._error(found, "',' or ')'")
        return frozenset(values)

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _error(self, found: str, expected: str) -> StatusError:
        return _unparsable(f"found {found!r}, expected: {expected}")


def _unparsable(detail: str) -> StatusError:
    return bad_request(f"unable to parse requirement: {detail}")


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        if match[1]:
            yield match[1]


def _split(text: str) -> Iterator[str]:
    """Terms between commas; a backslash takes the next character as it is."""
    term = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            term += character + next(characters, "")
        elif character == ",":
            yield term
            term = ""
        else:
            term += character
    yield term


def _term(text: str, kind: Kind) -> tuple[str, bool, str]:
    match = re.match(r"([^=!\\]*)(==|!=|=)(.*)", text, re.DOTALL)
    if match is None:
        raise bad_request(f"invalid selector: {text!r}; can't understand it, expected FIELD=VALUE or FIELD!=VALUE")
    path, operator, escaped = match.groups()
    path = path.strip()
    allowed = ("metadata.name", *(("metadata.namespace",) if kind.namespaced else ()), *_fields_of(kind))
    if path not in allowed:
        raise bad_request(f'"{path}" is not a known field selector: only {", ".join(map(repr, allowed))}')
    value = re.sub(r"\\([\\,=])", r"\1", escaped)
    if re.search(r"(?<!\\)(\\\\)*\\([^\\,=]|$)", escaped) or re.search(r"(?<!\\)(\\\\)*=", escaped):
        raise bad_request(f"invalid field selector: the value {escaped!r} must write \\, , and = as \\\\, \\, and \\=")
    return path, operator != "!=", value


def _fields_of(kind: Kind) -> tuple[str, ...]:
    return () if kind.custom else _FIELDS.get(kind.kind, ())


def _field(obj: dict[str, Any], path: str) -> str:
    value: Any = obj
    if path == "source":
        path = "source.component"
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)
