"""meta.k8s.io/v1 Table: what `kubectl get` prints.

Source: apiextensions-apiserver tableconvertor.go (columns of custom kinds), kubernetes pkg/printers/internalversion
(columns of built-in kinds), k8s.io/apimachinery pkg/util/duration (ages).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from modelyard.control.apiserver import jsonpath
from modelyard.control.apiserver.kinds import Column, Kind

Object = dict[str, Any]
Cell = str | int | float | bool | None
IncludeObject = Literal["Metadata", "Object", "None"]

_UNKNOWN = "<unknown>"
_NONE = "<none>"
_NAME = Column("Name", "string", ".metadata.name", format="name", description="Name of the object.")
_AGE = Column("Age", "date", ".metadata.creationTimestamp", description="Time since the object was created.")
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def table(
    kind: Kind,
    objects: Iterable[Object],
    *,
    include_object: IncludeObject,
    now: float,
    list_metadata: Mapping[str, Any],
    with_columns: bool = True,
) -> Object:
    """A Table. now: seconds since 1970, for ages. with_columns: only the first table of a watch defines the columns."""
    columns = _columns(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_metadata),
        "columnDefinitions": [_definition(each) for each in columns] if with_columns else [],
        "rows": [_row(kind, columns, obj, include_object, now) for obj in objects],
    }


def age(seconds: float) -> str:
    """A duration for people, as kubectl prints ages: `5m12s`, `3h`, `2d4h`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{max(whole, 0)}s"
    steps = (
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    )
    for limit, unit, name, smaller, smaller_name in steps:
        if whole < limit:
            rest = whole % unit // smaller if smaller else 0
            return f"{whole // unit}{name}" + (f"{rest}{smaller_name}" if rest else "")
    return f"{whole // _YEAR}y"


def _columns(kind: Kind) -> tuple[Column, ...]:
    if kind.custom:
        return (_NAME, *(kind.columns or (_AGE,)))
    return _BUILTIN.get(kind.kind, (_NAME, _AGE))


def _definition(column: Column) -> Object:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description or f"Custom resource definition column (in JSONPath format): {column.path}",
        "priority": column.priority,
    }


def _row(kind: Kind, columns: tuple[Column, ...], obj: Object, include: IncludeObject, now: float) -> Object:
    row: Object = {"cells": [_cell(kind, column, obj, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include == "Metadata":
        meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        row["object"] = meta
    return row


def _cell(kind: Kind, column: Column, obj: Object, now: float) -> Cell:
    if not kind.custom and column.path in _COMPUTED:
        return _COMPUTED[column.path](obj)
    found = jsonpath.find(column.path, obj)
    if column.type == "date":
        return _since(found[0] if found else None, now)
    if not found or found[0] is None:
        return None if kind.custom else _NONE
    return _typed(column.type, found)


def _typed(kind: str, found: list[Any]) -> Cell:
    """The value as the column's type; null where it does not fit, as Kubernetes does."""
    first = found[0]
    if kind == "string":
        return ",".join(_text(each) for each in found)
    if kind == "boolean":
        return first if isinstance(first, bool) else None
    if isinstance(first, bool) or not isinstance(first, int | float):
        return None
    return int(first) if kind == "integer" else first


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _since(moment: Any, now: float) -> str:
    try:
        found = datetime.fromisoformat(str(moment))
    except ValueError:
        return _UNKNOWN
    return age(now - (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _phase(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str(obj.get("status", {}).get("phase", "Active"))


def _data(obj: Object) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _controller(obj: Object) -> str:
    owners = obj["metadata"].get("ownerReferences", ())
    owner = next((each for each in owners if each.get("controller")), None)
    return _NONE if owner is None else _reference(owner)


def _reference(reference: Object) -> str:
    """`modelservice.modelyard.dev/iris`."""
    group = str(reference.get("apiVersion", "")).rpartition("/")[0]
    kind = str(reference.get("kind", "")).lower()
    return f"{kind}.{group}/{reference.get('name')}" if group else f"{kind}/{reference.get('name')}"


def _about(obj: Object) -> str:
    about = obj.get("involvedObject", {})
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _source(obj: Object) -> str:
    source = obj.get("source", {})
    parts = (source.get("component") or obj.get("reportingComponent"), source.get("host"))
    return ", ".join(str(part) for part in parts if part)


def _role(obj: Object) -> str:
    reference = obj.get("roleRef", {})
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _subjects(kind: str) -> Callable[[Object], Cell]:
    def names(obj: Object) -> str:
        found = (each for each in obj.get("subjects") or () if each.get("kind") == kind)
        return ", ".join(f"{each['namespace']}/{each['name']}" if each.get("namespace") else each["name"]
                         for each in found)  # fmt: skip

    return names


_COMPUTED: dict[str, Callable[[Object], Cell]] = {
    "phase": _phase,
    "data": _data,
    "controller": _controller,
    "about": _about,
    "source": _source,
    "message": lambda obj: str(obj.get("message", "")).strip(),
    "count": lambda obj: obj.get("count") or 1,
    "role": _role,
    "users": _subjects("User"),
    "groups": _subjects("Group"),
    "accounts": _subjects("ServiceAccount"),
    "secrets": lambda obj: len(obj.get("secrets") or ()),
    "subobject": lambda obj: str(obj.get("involvedObject", {}).get("fieldPath", "")),
}
"""Cells of built-in kinds that no JSONPath finds; the columns below name them instead of a path."""

_ROLE = (_NAME, Column("Created At", "string", ".metadata.creationTimestamp", description="When it was made."))
_BINDING = (
    _NAME,
    Column("Role", "string", "role", description="The role that the subjects get."),
    _AGE,
    Column("Users", "string", "users", 1, description="Users among the subjects."),
    Column("Groups", "string", "groups", 1, description="Groups among the subjects."),
    Column("ServiceAccounts", "string", "accounts", 1, description="ServiceAccounts among the subjects."),
)

_BUILTIN: dict[str, tuple[Column, ...]] = {
    "Namespace": (_NAME, Column("Status", "string", "phase", description="Active or Terminating."), _AGE),
    "ConfigMap": (_NAME, Column("Data", "string", "data", description="Number of keys."), _AGE),
    "Secret": (
        _NAME,
        Column("Type", "string", ".type", description="What the secret is for."),
        Column("Data", "string", "data", description="Number of keys."),
        _AGE,
    ),
    "Event": (
        Column("Last Seen", "date", ".lastTimestamp", description="Time since it happened last."),
        Column("Type", "string", ".type", description="Normal or Warning."),
        Column("Reason", "string", ".reason", description="One word for programs."),
        Column("Object", "string", "about", description="What the event is about."),
        Column("Subobject", "string", "subobject", 1, description="Part of the object."),
        Column("Source", "string", "source", 1, description="Who reported it."),
        Column("Message", "string", "message", description="What happened."),
        Column("First Seen", "date", ".firstTimestamp", 1, description="Time since it happened first."),
        Column("Count", "string", "count", 1, description="How often it happened."),
        Column("Name", "string", ".metadata.name", 1, format="name", description="Name of the event."),
    ),
    "ControllerRevision": (
        _NAME,
        Column("Controller", "string", "controller", description="The object that the revision belongs to."),
        Column("Revision", "string", ".revision", description="Number of the revision."),
        _AGE,
    ),
    "ServiceAccount": (_NAME, Column("Secrets", "integer", "secrets", description="Number of secrets."), _AGE),
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "Lease": (_NAME, Column("Holder", "string", ".spec.holderIdentity", description="Who holds it."), _AGE),
}
