"""The columns of `get`: those that kubectl shows, computed by the same code that the embedded server uses."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from modelyard.api import columns as declared
from modelyard.control.apiserver import kinds
from modelyard.control.apiserver.table import table
from modelyard.control.kube.resources import Resource

Object = dict[str, Any]


def titles(resource: Resource, *, wide: bool) -> list[str]:
    """In capitals, as kubectl prints them."""
    definitions = table(_kind(resource), (), include_object="None", now=0.0, list_metadata={})["columnDefinitions"]
    return [str(each["name"]).upper() for each in definitions if wide or not each["priority"]]


def rows(resource: Resource, objects: Sequence[Object], now: float, *, wide: bool) -> list[list[str]]:
    """The cells of each object. now: seconds since 1970, for ages."""
    found = table(_kind(resource), objects, include_object="None", now=now, list_metadata={})
    shown = [wide or not each["priority"] for each in found["columnDefinitions"]]
    return [
        [_text(cell) for cell, visible in zip(row["cells"], shown, strict=True) if visible] for row in found["rows"]
    ]


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


@cache
def _kind(resource: Resource) -> kinds.Kind:
    if resource.kind not in declared.COLUMNS:
        return next(each for each in kinds.builtin() if each.kind == resource.kind)
    return kinds.Kind(
        group=resource.group,
        version=resource.version,
        kind=resource.kind,
        plural=resource.plural,
        singular=resource.kind.lower(),
        list_kind=f"{resource.kind}List",
        short_names=(),
        categories=(),
        namespaced=resource.namespaced,
        schema=None,  # of no use here, and slow to make
        columns=tuple(map(kinds.column, declared.COLUMNS[resource.kind])),
        custom=True,
    )
