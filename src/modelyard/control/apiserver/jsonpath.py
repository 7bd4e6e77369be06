"""The part of JSONPath that printer columns use: fields, `[*]`, `[0]` and `[?(@.type=="Ready")]`.

Source: k8s.io/client-go util/jsonpath, as additionalPrinterColumns allow it.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

_STEP = re.compile(
    r"""\.(?P<field>(?:[^.\[\]\\]|\\.)+)"""
    r"""|\['(?P<quoted>[^']*)'\]"""
    r"""|\[(?P<index>-?\d+)\]"""
    r"""|(?P<all>\[\*\])"""
    r"""|\[\?\(\s*@\.(?P<key>[\w.-]+)\s*(?P<operator>==|!=)\s*(?P<quote>["'])(?P<value>[^"']*)(?P=quote)\s*\)\]"""
)


class _Step(NamedTuple):
    """kind: field, index, all or filter."""

    kind: str
    name: str = ""
    position: int = 0
    equal: bool = True
    value: str = ""


def find(path: str, obj: Any) -> list[Any]:
    """All values at the path, in order. Raises ValueError for a path of another form."""
    found = [obj]
    for step in _steps(path):
        found = [each for value in found for each in _follow(step, value)]
    return found


@cache
def _steps(path: str) -> tuple[_Step, ...]:
    """Paths come from our own definitions, so the cache is as large as they are."""
    steps: list[_Step] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"{path!r}: not understood from {path[at:]!r} on")
        at = match.end()
        if match["field"] is not None:
            steps.append(_Step("field", name=re.sub(r"\\(.)", r"\1", match["field"])))
        elif match["quoted"] is not None:
            steps.append(_Step("field", name=match["quoted"]))
        elif match["index"] is not None:
            steps.append(_Step("index", position=int(match["index"])))
        elif match["all"] is not None:
            steps.append(_Step("all"))
        else:
            steps.append(_Step("filter", name=match["key"], equal=match["operator"] == "==", value=match["value"]))
    return tuple(steps)


def _follow(step: _Step, value: Any) -> Iterator[Any]:
    if step.kind == "field":
        if isinstance(value, dict) and step.name in value:
            yield value[step.name]
    elif step.kind == "index":
        if isinstance(value, list) and -len(value) <= step.position < len(value):
            yield value[step.position]
    elif step.kind == "all":
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    elif isinstance(value, list):
        yield from (each for each in value if _holds(step, each))


def _holds(step: _Step, item: Any) -> bool:
    for key in step.name.split("."):
        item = item.get(key) if isinstance(item, dict) else None
    return bool(item == step.value) == step.equal
