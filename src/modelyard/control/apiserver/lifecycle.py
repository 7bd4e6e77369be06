"""The server's own fields of an object, from creation to removal. Pure.

Source: k8s.io/apiserver pkg/registry/rest/{create,update,delete}.go.
"""

from typing import Any

from modelyard.control.apiserver import status
from modelyard.control.apiserver.kinds import RBAC, Kind
from modelyard.control.apiserver.requests import Propagation
from modelyard.control.apiserver.schema import is_date_time
from modelyard.control.apiserver.status import Cause

Object = dict[str, Any]
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
KUBERNETES = "kubernetes"
"""Finalizer in a namespace's spec: content may be left."""
MAX_OBJECT_BYTES = 1536 * 2**10
_OURS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion")
_DROPPED = ("selfLink", "managedFields")
_PROTECTED = frozenset({"default", "modelyard-system"})
_RESERVED = {"ClusterRole": ("cluster-admin", "view", "edit", "admin"), "ClusterRoleBinding": ("cluster-admin",)}


def is_namespace(kind: Kind) -> bool:
    """Whether objects of the kind hold other objects."""
    return kind.kind == "Namespace" and not kind.group


def created(kind: Kind, body: Object, *, namespace: str | None, uid: str, now: str) -> Object:
    """The first version of an object. Raises StatusError for one that names another namespace or a version."""
    metadata = {key: value for key, value in _metadata(body).items() if key not in (*_OURS, *_DROPPED)}
    since = _metadata(body).get("creationTimestamp")
    if since is not None and not (isinstance(since, str) and is_date_time(since)):
        raise status.bad_request(f"metadata.creationTimestamp: {since!r:.40} is not a time")
    if _metadata(body).get("resourceVersion"):
        raise status.bad_request("resourceVersion should not be set on objects to be created")
    if kind.namespaced:
        if metadata.get("namespace") not in (None, "", namespace):
            raise status.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata |= {"uid": uid, "creationTimestamp": now}
    if kind.custom:
        metadata["generation"] = 1
    body = {**body, "metadata": metadata}
    if is_namespace(kind):
        labels = metadata.get("labels") or {}
        if isinstance(labels, dict):
            metadata["labels"] = {**labels, "kubernetes.io/metadata.name": metadata.get("name")}
        body |= {"spec": {"finalizers": [KUBERNETES]}, "status": {"phase": "Active"}}
    return body


def updated(kind: Kind, proposed: Object, current: Object, subresource: str) -> Object:
    """What is to be stored instead of `current`; the server's own fields stay. Raises StatusError for a lost race."""
    old, wanted = current["metadata"], _metadata(proposed)
    _expect(kind, old, wanted)
    kept = {key: old[key] for key in (*_OURS, "namespace") if key in old}
    metadata = {key: value for key, value in wanted.items() if key not in (*_OURS, *_DROPPED, "namespace")} | kept
    body = {**proposed, "metadata": old if subresource == "status" else metadata}
    if is_namespace(kind):
        body |= {key: current[key] for key in ("spec", "status") if key in current}
    return body


def _expect(kind: Kind, old: Object, wanted: Object) -> None:
    name = old["name"]
    if wanted.get("name") not in (None, "", name):
        raise status.bad_request(
            f"the name of the object ({wanted['name']}) does not match the name on the URL ({name})"
        )
    if wanted.get("namespace") not in (None, "", old.get("namespace", "")):
        raise status.bad_request(
            f"the namespace of the object ({wanted['namespace']}) does not match the namespace on the request "
            f"({old.get('namespace', '')})"
        )
    if wanted.get("uid") not in (None, "", old["uid"]):
        raise status.conflict(
            kind, name, f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {old['uid']}"
        )
    version = wanted.get("resourceVersion")
    if version and version != old["resourceVersion"]:
        raise status.conflict(kind, name)
    if not version and kind.custom:
        detail = "must be specified for an update"
        raise status.invalid(kind, name, [Cause.invalid("metadata.resourceVersion", 0, detail)])


def counted(kind: Kind, new: Object, old: Object) -> Object:
    """Add one to the generation when the desired state changed: all but metadata and, with a subresource, status."""
    if not kind.custom or "generation" not in old["metadata"]:
        return new
    aside = ("metadata", "status") if kind.status else ("metadata",)
    if _without(new, aside) == _without(old, aside):
        return new
    return {**new, "metadata": {**new["metadata"], "generation": old["metadata"]["generation"] + 1}}


def marked(kind: Kind, body: Object, propagation: Propagation | None, now: str) -> Object:
    """The object when its deletion was asked for: stamped, and with the finalizer that the propagation needs."""
    metadata = dict(body["metadata"])
    finalizers = list(_finalizers(metadata))
    if propagation is not None:
        finalizers = [each for each in finalizers if each not in (FOREGROUND, ORPHAN)]
    if propagation == "Foreground":
        finalizers.append(FOREGROUND)
    elif propagation == "Orphan":
        finalizers.append(ORPHAN)
    metadata.pop("finalizers", None)
    if finalizers:
        metadata["finalizers"] = finalizers
    if "deletionTimestamp" not in metadata:
        metadata |= {"deletionTimestamp": now, "deletionGracePeriodSeconds": 0}
        if "generation" in metadata:
            metadata["generation"] += 1
    body = {**body, "metadata": metadata}
    return {**body, "status": {**body.get("status", {}), "phase": "Terminating"}} if is_namespace(kind) else body


def may_go(kind: Kind, body: Object) -> bool:
    """Whether an object that is being deleted has nobody left to wait for."""
    metadata = body["metadata"]
    waits = _finalizers(metadata) or (is_namespace(kind) and body.get("spec", {}).get("finalizers"))
    return "deletionTimestamp" in metadata and not waits


def refuse_protected(kind: Kind, name: str) -> None:
    """Raises StatusError for the namespaces that must exist."""
    if is_namespace(kind) and name in _PROTECTED:
        raise status.forbidden(kind, name, "this namespace may not be deleted")


def refuse_reserved(kind: Kind, name: str) -> None:
    """Raises StatusError for roles and bindings that come with the server, and for names that look like theirs."""
    if kind.group == RBAC and (name.startswith("system:") or name in _RESERVED.get(kind.kind, ())):
        message = "this name belongs to Modelyard, and what comes with it cannot be changed; choose another name"
        raise status.forbidden(kind, name, message)


def _metadata(body: Object) -> Object:
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict):
        raise status.bad_request("metadata: expected an object")
    return metadata


def _finalizers(metadata: Object) -> list[str]:
    return metadata.get("finalizers") or []


def _without(body: Object, fields: tuple[str, ...]) -> Object:
    return {key: value for key, value in body.items() if key not in fields}
