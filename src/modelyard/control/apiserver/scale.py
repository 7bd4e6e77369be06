"""autoscaling/v1 Scale, as a view of two numbers and a selector of another object. Pure."""

from copy import deepcopy
from typing import Any

from modelyard.control.apiserver import status
from modelyard.control.apiserver.kinds import Kind, Scale
from modelyard.control.apiserver.status import Cause

Object = dict[str, Any]
_CARRIED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def view(kind: Kind, body: Object) -> Object:
    """The Scale of an object."""
    scale = _scale(kind)
    metadata = body["metadata"]
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {key: metadata[key] for key in _CARRIED if key in metadata},
        "spec": {"replicas": _number(body, scale.spec_path)},
        "status": {
            "replicas": _number(body, scale.status_path),
            **({"selector": text} if isinstance(text := _at(body, scale.selector_path), str) else {}),
        },
    }


def applied(kind: Kind, body: Object, wanted: Object) -> Object:
    """The object with the replicas that a Scale wants. Raises StatusError 400 and 422."""
    if wanted.get("kind") not in (None, "Scale"):
        raise status.bad_request(f"expected a Scale, not {wanted.get('kind')!r}")
    spec, metadata = wanted.get("spec", {}), wanted.get("metadata") or {}
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        raise status.bad_request("spec and metadata: expected objects")
    replicas = spec.get("replicas", 0)
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        detail = "must be a whole number greater than or equal to 0"
        raise status.invalid(kind, body["metadata"]["name"], [Cause.invalid("spec.replicas", replicas, detail)])
    body = deepcopy(body)
    *path, last = _scale(kind).spec_path.split(".")
    parent = body
    for part in path:
        parent = parent.setdefault(part, {})
    parent[last] = replicas
    # A Scale without a version is unconditional, even where the object itself insists on one.
    body["metadata"] |= {key: metadata[key] for key in ("uid", "resourceVersion") if metadata.get(key)}
    return body


def _scale(kind: Kind) -> Scale:
    if kind.scale is None:
        raise status.unknown_path()
    return kind.scale


def _number(body: Object, path: str) -> int:
    found = _at(body, path)
    return found if isinstance(found, int) else 0


def _at(body: Object, path: str) -> Any:
    found: Any = body
    for part in path.split(".") if path else ():
        found = found.get(part) if isinstance(found, dict) else None
    return found if path else None
