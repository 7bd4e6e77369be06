"""What `get` shows of each kind. Apart from the types, since a command that only lists needs none of them."""

from collections.abc import Mapping
from typing import Any

Column = dict[str, Any]


def _column(name: str, kind: str, path: str, priority: int = 0) -> Column:
    column: Column = {"name": name, "type": kind, "jsonPath": path}
    return {**column, "priority": priority} if priority else column


_READY = _column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status')
_REASON = _column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason')
_MESSAGE = _column("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1)
_AGE = _column("Age", "date", ".metadata.creationTimestamp")

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "AccessPolicy": (
        _column("Services", "integer", ".status.services"),
        _column("Authentication", "string", ".spec.authentication"),
        _READY,
        _REASON,
        _AGE,
        _MESSAGE,
    ),
    "Model": (
        _column("Format", "string", ".status.format"),
        _READY,
        _REASON,
        _AGE,
        _column("URI", "string", ".spec.uri", 1),
        _column("Digest", "string", ".status.digest", 1),
        _MESSAGE,
    ),
    "ModelJob": (
        _column("Complete", "string", '.status.conditions[?(@.type=="Complete")].status'),
        _column("Reason", "string", '.status.conditions[?(@.type=="Complete")].reason'),
        _column("Progress", "integer", ".status.progressPercentage"),
        _column("Rows", "integer", ".status.rows"),
        _column("Errors", "integer", ".status.errorRows"),
        _column("Active", "integer", ".status.active"),
        _column("Failed", "integer", ".status.failed"),
        _AGE,
        _column("Output", "string", ".status.output", 1),
        _column("Message", "string", '.status.conditions[?(@.type=="Complete")].message', 1),
    ),
    "ModelService": (
        _column("URL", "string", ".status.url"),
        _READY,
        _REASON,
        _column("Replicas", "integer", ".status.readyReplicas"),
        _column("Desired", "integer", ".status.desiredReplicas"),
        _column("Latest", "string", ".status.latestReadyRevision"),
        _AGE,
        _column("Digest", "string", ".status.digest", 1),
        _MESSAGE,
    ),
    "ModelStream": (
        _READY,
        _REASON,
        _column("Delivery", "string", ".status.delivery"),
        _column("Partitions", "integer", ".spec.partitions"),
        _column("Runners", "integer", ".status.readyReplicas"),
        _column("Lag", "integer", ".status.lag"),
        _column("Rate", "integer", ".status.recordsPerSecond"),
        _AGE,
        _column("Records", "integer", ".status.records", 1),
        _column("Dead", "integer", ".status.deadLetters", 1),
        _column("Latency", "integer", ".status.latencyMilliseconds", 1),
        _column("Latest", "string", ".status.latestReadyRevision", 1),
        _column("Digest", "string", ".status.digest", 1),
        _MESSAGE,
    ),
    "Runtime": (_column("Formats", "string", ".spec.formats[*].name"), _READY, _REASON, _AGE, _MESSAGE),
}
"""additionalPrinterColumns by kind, as a CustomResourceDefinition spells them; the name comes before them."""
