"""Revisions and owned objects in Kubernetes' words, and back."""

import zlib
from typing import Any

import msgspec

from modelyard.base.errors import UserError
from modelyard.control.ir import names
from modelyard.control.ir.revision import JobRevision, Recorded, Revision

Object = dict[str, Any]
_LABELS = {
    "ModelService": names.LABEL_SERVICE,
    "ModelJob": names.LABEL_JOB,
    "ModelStream": names.LABEL_STREAM,
}
"""By the kind of the owner."""
_POD = "pod"
"""Of a ControllerRevision's data, beside the fields of the revision."""


def owner_reference(owner: Object) -> Object:
    """The owner as the one controller: the child goes when it goes."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_revision(revision: Recorded, owner: Object, pod: Object | None = None) -> Object:
    """apps/v1 ControllerRevision: its data cannot be changed once it is stored. pod: the template rendered for it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision.name,
            "namespace": revision.owner.namespace,
            "labels": {
                names.LABEL_MANAGED_BY: names.MANAGER,
                _LABELS[revision.owner.kind]: revision.owner.name,
                names.LABEL_INPUTS: revision.inputs_hash,
            },
            "ownerReferences": [owner_reference(owner)],
        },
        "revision": revision.number,
        "data": {**msgspec.to_builtins(revision), **({_POD: pod} if pod is not None else {})},
    }


def revision(stored: Object) -> Recorded:
    """The inverse. Raises UserError for one that another program wrote."""
    try:
        data = _data(stored)
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name != _POD}
        if isinstance(data, dict) and "task" in data:
            return msgspec.convert(data, JobRevision)
        return msgspec.convert(data, Revision)
    except msgspec.ValidationError as error:
        metadata = stored.get("metadata", {})
        raise UserError(
            f"ControllerRevision {metadata.get('namespace')}/{metadata.get('name')} was not written by this release: "
            f"{error}; delete it to have a new one made"
        ) from error


def pod_template(stored: Object) -> Object | None:
    """The pod template that was recorded with a revision; None: none was, as on a machine without Kubernetes."""
    data = _data(stored)
    pod = data.get(_POD) if isinstance(data, dict) else None
    return pod if isinstance(pod, dict) else None


def packed(stored: Object) -> Object:
    """A stored ControllerRevision to keep in memory: its data, which is read twice in its life, takes a tenth there."""
    try:
        return {**stored, "data": zlib.compress(msgspec.json.encode(stored.get("data")), 1)}
    except (UnicodeEncodeError, RecursionError):
        return stored  # none of ours


def _data(stored: Object) -> Any:
    """Packed or not."""
    data = stored.get("data")
    return msgspec.json.decode(zlib.decompress(data)) if isinstance(data, bytes) else data


def owned(kind: str, api_version: str, name: str, spec: Object, owner: Object) -> Object:
    """A child object of ours."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {names.LABEL_MANAGED_BY: names.MANAGER, _LABELS[owner["kind"]]: owner["metadata"]["name"]},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }


def made(name: str, namespace: str, spec: Object, annotations: dict[str, str]) -> Object:
    """A Model of a job's output. It stays when the job goes."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec,
    }
