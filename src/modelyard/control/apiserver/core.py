"""Schemas of the built-in kinds, written by hand: the fields of Kubernetes, with short descriptions.

Source: k8s.io/api core/v1, apps/v1, coordination.k8s.io/v1 and k8s.io/apimachinery metav1.ObjectMeta. They decide what
is stored and what `kubectl explain` says.
"""

from typing import Any

Schema = dict[str, Any]


def _object(description: str, properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    schema: Schema = {"type": "object", "description": description, "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def _root(description: str, properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    named = {
        "apiVersion": _text("Version of this representation of an object."),
        "kind": _text("Kind of this object, in CamelCase."),
        "metadata": {"type": "object"},
    }
    return _object(description, {**named, **properties}, required)


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _time(description: str) -> Schema:
    return _text(description, format="date-time")


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _count(description: str, width: int = 32, **more: Any) -> Schema:
    return {"type": "integer", "format": f"int{width}", "description": description, **more}


def _texts(description: str, **more: Any) -> Schema:
    return {"type": "array", "description": description, "items": {"type": "string"}, **more}


def _text_map(description: str, **more: Any) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": {"type": "string", **more}}


def _bytes_map(description: str) -> Schema:
    return _text_map(description, format="byte")


OWNER_REFERENCE = _object(
    "The object that this one belongs to.",
    {
        "apiVersion": _text("API version of the owner."),
        "kind": _text("Kind of the owner."),
        "name": _text("Name of the owner."),
        "uid": _text("UID of the owner."),
        "controller": _flag("Whether the owner manages this object; at most one does."),
        "blockOwnerDeletion": _flag("Whether foreground deletion of the owner waits for this object."),
    },
    ("apiVersion", "kind", "name", "uid"),
)

OBJECT_META = _object(
    "Standard object's metadata.",
    {
        "name": _text("Name of the object, unique for its kind within the namespace. Cannot be changed."),
        "generateName": _text("Prefix of a name that the server completes when name is not given."),
        "namespace": _text("Namespace of the object. Cannot be changed."),
        "selfLink": _text("Not used any more."),
        "uid": _text("Identity of this object in time and space; set by the server."),
        "resourceVersion": _text("Version of the object; a write that names another one is refused."),
        "generation": _count("Counts the changes of the desired state; set by the server.", 64),
        "creationTimestamp": _time("When the object was created; set by the server."),
        "deletionTimestamp": _time("When deletion was asked for; the object goes when its finalizers are gone."),
        "deletionGracePeriodSeconds": _count("Seconds that a graceful deletion may take.", 64),
        "labels": _text_map("Key and value pairs that selectors look at."),
        "annotations": _text_map("Key and value pairs for tools; selectors do not look at them."),
        "ownerReferences": {
            "type": "array",
            "description": "Objects that this one belongs to: it is deleted when all of them are gone.",
            "items": OWNER_REFERENCE,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-merge-key": "uid",
            "x-kubernetes-patch-strategy": "merge",
        },
        "finalizers": _texts(
            "Who must agree before the object goes.",
            **{"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"},
        ),
        "managedFields": {
            "type": "array",
            "description": "Who set which field.",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "x-kubernetes-list-type": "atomic",
        },
    },
)

NAMESPACE = _root(
    "A Namespace holds objects of one team or purpose; deleting it deletes them.",
    {
        "spec": _object(
            "Desired state of the namespace.",
            {"finalizers": _texts("Who must agree before the namespace goes.", **{"x-kubernetes-list-type": "atomic"})},
        ),
        "status": _object(
            "Observed state of the namespace.",
            {
                "phase": _text("Active, or Terminating while its objects are deleted."),
                "conditions": {
                    "type": "array",
                    "description": "State of the deletion.",
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        ),
    },
)

CONFIG_MAP = _root(
    "A ConfigMap holds configuration for programs.",
    {
        "data": _text_map("Texts by key. Keys consist of letters, digits, '-', '_' and '.'."),
        "binaryData": _bytes_map("Bytes in base64 by key; no key may also be in data."),
        "immutable": _flag("If true, data and binaryData can never be changed."),
    },
)

SECRET = _root(
    "A Secret holds values that not everybody may read.",
    {
        "type": _text("What the secret is for, for example Opaque or kubernetes.io/basic-auth. Cannot be changed."),
        "data": _bytes_map("Values in base64 by key. Keys consist of letters, digits, '-', '_' and '.'."),
        "stringData": _text_map("Values as plain text, moved into data when written; never read back."),
        "immutable": _flag("If true, data can never be changed."),
    },
)
SECRET["properties"]["type"]["default"] = "Opaque"

OBJECT_REFERENCE = _object(
    "An object.",
    {
        "apiVersion": _text("API version of the object."),
        "kind": _text("Kind of the object."),
        "namespace": _text("Namespace of the object."),
        "name": _text("Name of the object."),
        "uid": _text("UID of the object."),
        "resourceVersion": _text("Version of the object."),
        "fieldPath": _text("Part of the object."),
    },
)

EVENT = _root(
    "An Event reports something that happened to an object. Events are kept for a limited time.",
    {
        "involvedObject": {**OBJECT_REFERENCE, "description": "The object that this event is about."},
        "reason": _text("One CamelCase word for programs."),
        "message": _text("A sentence for people."),
        "source": _object(
            "Who reported the event.",
            {"component": _text("Program that reported it."), "host": _text("Machine that it ran on.")},
        ),
        "type": _text("Normal or Warning."),
        "count": _count("How often this has happened."),
        "firstTimestamp": _time("When it happened first."),
        "lastTimestamp": _time("When it happened last."),
        "eventTime": _time("When the event was observed first."),
        "action": _text("What was done or failed."),
        "related": {**OBJECT_REFERENCE, "description": "Another object that took part."},
        "reportingComponent": _text("Program that reported the event."),
        "reportingInstance": _text("Instance of that program."),
        "series": _object(
            "Data about a series of events.",
            {"count": _count("Number of events in it."), "lastObservedTime": _time("When the last one happened.")},
        ),
    },
    ("involvedObject",),
)

CONTROLLER_REVISION = _root(
    "A ControllerRevision is an immutable snapshot of state, recorded by a controller.",
    {
        "data": {
            "type": "object",
            "description": "The recorded state. Cannot be changed.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "revision": _count("Number of the revision.", 64),
    },
    ("data", "revision"),
)

LEASE = _root(
    "A Lease says who holds a role, and until when.",
    {
        "spec": _object(
            "Who holds the lease.",
            {
                "holderIdentity": _text("Holder of the lease."),
                "leaseDurationSeconds": _count("Seconds after renewTime when others may take it.", minimum=1),
                "acquireTime": _time("When the holder took it."),
                "renewTime": _time("When the holder last renewed it."),
                "leaseTransitions": _count("How often the holder changed.", minimum=0),
                "strategy": _text("How a holder is chosen by a coordinator."),
                "preferredHolder": _text("Who should take it next."),
            },
        )
    },
)
