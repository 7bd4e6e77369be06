"""Schemas of the built-in kinds, written by hand: the fields of Kubernetes, with short descriptions.

Source: k8s.io/api core/v1, apps/v1, coordination.k8s.io/v1 and k8s.io/apimachinery metav1.ObjectMeta. They decide what
is stored and what `kubectl explain` says.
"""

from typing import Any

Schema = dict[str, Any]


def struct(description: str, properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """An object with these fields."""
    schema: Schema = {"type": "object", "description": description, "properties": properties}
    return {**schema, "required": list(required)} if required else schema


def root(description: str, properties: dict[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """A whole kind: its own fields, apiVersion, kind and metadata."""
    named = {
        "apiVersion": text("Version of this representation of an object."),
        "kind": text("Kind of this object, in CamelCase."),
        "metadata": {"type": "object"},
    }
    return struct(description, {**named, **properties}, required)


def text(description: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": description, **more}


def moment(description: str) -> Schema:
    """A time in RFC 3339."""
    return text(description, format="date-time")


def flag(description: str) -> Schema:
    """A boolean."""
    return {"type": "boolean", "description": description}


def count(description: str, width: int = 32, **more: Any) -> Schema:
    """An integer."""
    return {"type": "integer", "format": f"int{width}", "description": description, **more}


def texts(description: str, **more: Any) -> Schema:
    """A list of strings."""
    return {"type": "array", "description": description, "items": {"type": "string"}, **more}


def text_map(description: str, **more: Any) -> Schema:
    """Strings by key."""
    return {"type": "object", "description": description, "additionalProperties": {"type": "string", **more}}


def bytes_map(description: str) -> Schema:
    """Bytes in base64 by key."""
    return text_map(description, format="byte")


OWNER_REFERENCE = struct(
    "The object that this one belongs to.",
    {
        "apiVersion": text("API version of the owner."),
        "kind": text("Kind of the owner."),
        "name": text("Name of the owner."),
        "uid": text("UID of the owner."),
        "controller": flag("Whether the owner manages this object; at most one does."),
        "blockOwnerDeletion": flag("Whether foreground deletion of the owner waits for this object."),
    },
    ("apiVersion", "kind", "name", "uid"),
)

OBJECT_META = struct(
    "Standard object's metadata.",
    {
        "name": text("Name of the object, unique for its kind within the namespace. Cannot be changed."),
        "generateName": text("Prefix of a name that the server completes when name is not given."),
        "namespace": text("Namespace of the object. Cannot be changed."),
        "selfLink": text("Not used any more."),
        "uid": text("Identity of this object in time and space; set by the server."),
        "resourceVersion": text("Version of the object; a write that names another one is refused."),
        "generation": count("Counts the changes of the desired state; set by the server.", 64),
        "creationTimestamp": moment("When the object was created; set by the server."),
        "deletionTimestamp": moment("When deletion was asked for; the object goes when its finalizers are gone."),
        "deletionGracePeriodSeconds": count("Seconds that a graceful deletion may take.", 64),
        "labels": text_map("Key and value pairs that selectors look at."),
        "annotations": text_map("Key and value pairs for tools; selectors do not look at them."),
        "ownerReferences": {
            "type": "array",
            "description": "Objects that this one belongs to: it is deleted when all of them are gone.",
            "items": OWNER_REFERENCE,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-patch-merge-key": "uid",
            "x-kubernetes-patch-strategy": "merge",
        },
        "finalizers": texts(
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

NAMESPACE = root(
    "A Namespace holds objects of one team or purpose; deleting it deletes them.",
    {
        "spec": struct(
            "Desired state of the namespace.",
            {"finalizers": texts("Who must agree before the namespace goes.", **{"x-kubernetes-list-type": "atomic"})},
        ),
        "status": struct(
            "Observed state of the namespace.",
            {
                "phase": text("Active, or Terminating while its objects are deleted."),
                "conditions": {
                    "type": "array",
                    "description": "State of the deletion.",
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        ),
    },
)

CONFIG_MAP = root(
    "A ConfigMap holds configuration for programs.",
    {
        "data": text_map("Texts by key. Keys consist of letters, digits, '-', '_' and '.'."),
        "binaryData": bytes_map("Bytes in base64 by key; no key may also be in data."),
        "immutable": flag("If true, data and binaryData can never be changed."),
    },
)

SECRET = root(
    "A Secret holds values that not everybody may read.",
    {
        "type": text("What the secret is for, for example Opaque or kubernetes.io/basic-auth. Cannot be changed."),
        "data": bytes_map("Values in base64 by key. Keys consist of letters, digits, '-', '_' and '.'."),
        "stringData": text_map("Values as plain text, moved into data when written; never read back."),
        "immutable": flag("If true, data can never be changed."),
    },
)
SECRET["properties"]["type"]["default"] = "Opaque"

OBJECT_REFERENCE = struct(
    "An object.",
    {
        "apiVersion": text("API version of the object."),
        "kind": text("Kind of the object."),
        "namespace": text("Namespace of the object."),
        "name": text("Name of the object."),
        "uid": text("UID of the object."),
        "resourceVersion": text("Version of the object."),
        "fieldPath": text("Part of the object."),
    },
)

EVENT = root(
    "An Event reports something that happened to an object. Events are kept for a limited time.",
    {
        "involvedObject": {**OBJECT_REFERENCE, "description": "The object that this event is about."},
        "reason": text("One CamelCase word for programs."),
        "message": text("A sentence for people."),
        "source": struct(
            "Who reported the event.",
            {"component": text("Program that reported it."), "host": text("Machine that it ran on.")},
        ),
        "type": text("Normal or Warning."),
        "count": count("How often this has happened."),
        "firstTimestamp": moment("When it happened first."),
        "lastTimestamp": moment("When it happened last."),
        "eventTime": moment("When the event was observed first."),
        "action": text("What was done or failed."),
        "related": {**OBJECT_REFERENCE, "description": "Another object that took part."},
        "reportingComponent": text("Program that reported the event."),
        "reportingInstance": text("Instance of that program."),
        "series": struct(
            "Data about a series of events.",
            {"count": count("Number of events in it."), "lastObservedTime": moment("When the last one happened.")},
        ),
    },
    ("involvedObject",),
)

CONTROLLER_REVISION = root(
    "A ControllerRevision is an immutable snapshot of state, recorded by a controller.",
    {
        "data": {
            "type": "object",
            "description": "The recorded state. Cannot be changed.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "revision": count("Number of the revision.", 64),
    },
    ("data", "revision"),
)

LEASE = root(
    "A Lease says who holds a role, and until when.",
    {
        "spec": struct(
            "Who holds the lease.",
            {
                "holderIdentity": text("Holder of the lease."),
                "leaseDurationSeconds": count("Seconds after renewTime when others may take it.", minimum=1),
                "acquireTime": moment("When the holder took it."),
                "renewTime": moment("When the holder last renewed it."),
                "leaseTransitions": count("How often the holder changed.", minimum=0),
                "strategy": text("How a holder is chosen by a coordinator."),
                "preferredHolder": text("Who should take it next."),
            },
        )
    },
)
