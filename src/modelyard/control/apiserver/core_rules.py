"""What the built-in kinds demand beyond their schemas.

Source: k8s.io/kubernetes pkg/apis/core/validation and pkg/registry/core/{secret,configmap,namespace}. Values of a
Secret appear in no message.
"""

import base64
from collections.abc import Iterator
from typing import Any

from modelyard.control.apiserver import role_rules
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.names import config_key_faults
from modelyard.control.apiserver.status import Cause
from modelyard.control.apiserver.values import same

Object = dict[str, Any]

_MOST_DATA = 2**20
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def prepared(kind: Kind, obj: Object) -> Object:
    """The object as it is stored: stringData moved into data, a Namespace with phase and label."""
    if kind.custom:
        return obj
    if kind.kind == "Secret" and "stringData" in obj:
        return _with_string_data(obj)
    if kind.kind == "Namespace":
        metadata = obj["metadata"]
        labels = {**metadata.get("labels", {}), _NAMESPACE_LABEL: metadata.get("name", "")}
        return {**obj, "metadata": {**metadata, "labels": labels}, "status": obj.get("status") or {"phase": "Active"}}
    return obj


def check(kind: Kind, new: Object, old: Object | None) -> list[Cause]:
    """Every violated rule of a built-in object whose schema holds; none for other kinds."""
    if kind.custom:
        return []
    match kind.kind:
        case "ConfigMap" | "Secret":
            return [*_data(new), *(_immutable_data(new, old) if old else ())]
        case "ControllerRevision":
            return list(_revision(new, old))
        case "Event":
            return list(_event(new))
        case "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding":
            return list(role_rules.check(new, old))
    return []


def _with_string_data(obj: Object) -> Object:
    texts = obj["stringData"]
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        return obj  # validation says what is wrong with it
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    kept = {key: value for key, value in obj.items() if key != "stringData"}
    data = obj.get("data", {})
    return {**kept, "data": {**data, **encoded} if isinstance(data, dict) else data}


def _data(obj: Object) -> Iterator[Cause]:
    texts, binary = obj.get("data", {}), obj.get("binaryData", {})
    for part, values in (("data", texts), ("binaryData", binary)):
        for key in values:
            yield from (Cause.invalid(f"{part}[{key}]", key, fault) for fault in config_key_faults(key))
    for key in sorted(texts.keys() & binary.keys()):
        yield Cause.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    if obj["kind"] == "Secret":
        size = sum(len(base64.b64decode(value)) for value in texts.values())
    else:
        size = sum(len(value.encode()) for value in texts.values())
        size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > _MOST_DATA:
        yield Cause.too_long("data", _MOST_DATA)


def _immutable_data(new: Object, old: Object) -> Iterator[Cause]:
    if old["kind"] == "Secret" and new.get("type") != old.get("type"):
        yield Cause.invalid("type", new.get("type"), "field is immutable")
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield Cause.forbidden("immutable", "field is immutable when `immutable` is set")
    for part in ("data", "binaryData"):
        if not same(new.get(part, {}), old.get(part, {})):
            yield Cause.forbidden(part, "field is immutable when `immutable` is set")


def _revision(new: Object, old: Object | None) -> Iterator[Cause]:
    if new["revision"] < 0:
        yield Cause.invalid("revision", new["revision"], "must be greater than or equal to 0")
    if old is not None and not same(new["data"], old["data"]):
        yield Cause.invalid("data", "object", "field is immutable")


def _event(new: Object) -> Iterator[Cause]:
    about = new["involvedObject"].get("namespace", "")
    mine = new["metadata"].get("namespace", "")
    if mine and (about or "default") != mine:
        yield Cause.invalid("involvedObject.namespace", about, "does not match event.namespace")
