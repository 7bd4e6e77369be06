"""metav1.ObjectMeta: what every object's metadata must fulfil, and what of it a write may change.

Source: k8s.io/apimachinery pkg/api/validation/objectmeta.go.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from modelyard.control.apiserver.kinds import RBAC, Kind
from modelyard.control.apiserver.names import (
    label_faults,
    label_value_faults,
    path_segment_faults,
    qualified_name_faults,
    subdomain_faults,
)
from modelyard.control.apiserver.status import Cause, conflict

Metadata = dict[str, Any]

_MOST_ANNOTATIONS = 256 * 2**10
_FIXED = ("name", "namespace", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def carried_over(kind: Kind, new: Metadata, old: Metadata) -> Metadata:
    """The new metadata with what the server set before. Raises StatusError 409 for another object's UID."""
    uid = new.get("uid")
    if uid and uid != old.get("uid"):
        message = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.get('uid')}"
        raise conflict(kind, str(old.get("name")), message)
    kept = {key: old[key] for key in _FIXED if key in old and not new.get(key)}
    set_by_server: Metadata = {key: old[key] for key in ("uid", "generation") if key in old}
    return {**new, **kept, **set_by_server}


def check(kind: Kind, new: Metadata, old: Metadata | None) -> list[Cause]:
    """Every violated rule of decoded metadata."""
    return [
        *_name(kind, new),
        *_namespace(kind, new),
        *_labels(new.get("labels", {})),
        *_annotations(new.get("annotations", {})),
        *_finalizers(new.get("finalizers", [])),
        *_owners(new.get("ownerReferences", [])),
        *(_change(new, old) if old is not None else ()),
    ]


def _name(kind: Kind, metadata: Metadata) -> Iterator[Cause]:
    is_label = kind.custom or kind.kind == "Namespace"  # public ids are <name>.<namespace>: names have no dots
    faults = label_faults if is_label else path_segment_faults if kind.group == RBAC else subdomain_faults
    name, prefix = metadata.get("name"), metadata.get("generateName")
    if name:
        yield from (Cause.invalid("metadata.name", name, fault) for fault in faults(name))
    elif not prefix:
        yield Cause.required("metadata.name", "name or generateName is required")
    else:
        completed = f"{prefix.removesuffix('-')}a"
        yield from (Cause.invalid("metadata.generateName", prefix, fault) for fault in faults(completed))


def _namespace(kind: Kind, metadata: Metadata) -> Iterator[Cause]:
    namespace = metadata.get("namespace")
    if namespace and not kind.namespaced:
        yield Cause.forbidden("metadata.namespace", "not allowed on this type")
    elif namespace:
        yield from (Cause.invalid("metadata.namespace", namespace, fault) for fault in label_faults(namespace))


def _labels(labels: dict[str, str]) -> Iterator[Cause]:
    for key, value in labels.items():
        yield from (Cause.invalid("metadata.labels", key, fault) for fault in qualified_name_faults(key))
        yield from (Cause.invalid("metadata.labels", value, fault) for fault in label_value_faults(value))


def _annotations(annotations: dict[str, str]) -> Iterator[Cause]:
    size = 0
    for key, value in annotations.items():
        size += len(key.encode()) + len(value.encode())
        yield from (Cause.invalid("metadata.annotations", key, fault) for fault in qualified_name_faults(key.lower()))
    if size > _MOST_ANNOTATIONS:
        yield Cause.too_long("metadata.annotations", _MOST_ANNOTATIONS)


def _finalizers(finalizers: Iterable[str]) -> Iterator[Cause]:
    for finalizer in finalizers:
        yield from (
            Cause.invalid("metadata.finalizers", finalizer, fault) for fault in qualified_name_faults(finalizer)
        )
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        detail = "finalizers cannot contain both orphan and foregroundDeletion"
        yield Cause.invalid("metadata.finalizers", list(finalizers), detail)


def _owners(owners: list[dict[str, Any]]) -> Iterator[Cause]:
    for owner in owners:
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                detail = f"{key} must not be empty"
                yield Cause.invalid(f"metadata.ownerReferences.{key}", owner.get(key, ""), detail)
    managers = [str(owner.get("name")) for owner in owners if owner.get("controller")]
    if len(managers) > 1:
        detail = (
            "Only one reference can have Controller set to true. "
            f'Found "true" in references for {managers[0]} and {managers[1]}'
        )
        yield Cause.invalid("metadata.ownerReferences", managers, detail)


def _change(new: Metadata, old: Metadata) -> Iterator[Cause]:
    for key in _FIXED:
        if new.get(key) != old.get(key):
            yield Cause.invalid(f"metadata.{key}", new.get(key), "field is immutable")
    added = sorted(set(new.get("finalizers", ())) - set(old.get("finalizers", ())))
    if old.get("deletionTimestamp") and added:
        names = ", ".join(f'"{each}"' for each in added)
        detail = (
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{names}}}"
        )
        yield Cause.forbidden("metadata.finalizers", detail)
