"""Every derived name, label and annotation. Children end in their kind."""

import msgspec

from modelyard.base import ids
from modelyard.control.ir.values import Key

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_SERVICE = "modelyard.dev/service"
LABEL_JOB = "modelyard.dev/job"
LABEL_STREAM = "modelyard.dev/stream"
LABEL_INPUTS = "modelyard.dev/inputs-hash"
ANNOTATION_REFRESH = "modelyard.dev/refresh"
ANNOTATION_RESTART = "modelyard.dev/restart"
ANNOTATION_JOB = "modelyard.dev/job"
ANNOTATION_JOB_UID = "modelyard.dev/job-uid"
ANNOTATION_METRICS = "modelyard.dev/metrics"
FINALIZER_CLEAN = "modelyard.dev/clean"
"""Keeps a stream until what it has left at its broker is removed."""
MANAGER = "modelyard"
SHADOW_SOCKET = "shadow.sock"
"""In the run folder of a server: where replicas that get copies of requests ask the revision that serves."""


def revision(service: str, number: int) -> str:
    """`iris` and 3 -> `iris-svc-00003`."""
    return f"{service}-svc-{number:05d}"


def stream_revision(stream: str, number: int) -> str:
    """`fraud` and 1 -> `fraud-stream-00001`."""
    return f"{stream}-stream-{number:05d}"


def unit(namespace: str, revision_name: str) -> str:
    """Unique over all namespaces: names have no dots, so the pair cannot clash."""
    return f"{revision_name}.{namespace}"


def public_id_of(unit_name: str) -> str:
    """The canonical id of the service that a unit belongs to: `iris-svc-00003.default` -> `iris.default`."""
    revision_name, _, namespace = unit_name.partition(".")
    service, _, _ = revision_name.rpartition("-svc-")
    return f"{service or revision_name}.{namespace}" if namespace else revision_name


def replica(unit_name: str, ordinal: int) -> str:
    """`iris-svc-00003.default` and 0 -> `iris-svc-00003.default-0`."""
    return f"{unit_name}-{ordinal}"


def owned_model(service: str, inputs: object) -> str:
    """The Model behind an inline `model.uri`: a new artifact is a new Model, since its spec is immutable."""
    return f"{service}-{ids.short_hash(canonical(inputs))}-model"


def prepare_task(key: Key, asked: object, attempt: int) -> str:
    """One task per Model, what is asked of it (generation, refresh annotation, work) and attempt."""
    return f"{key.name}-prepare-{ids.short_hash(canonical(asked))}-{attempt}.{key.namespace}"


def job_revision(job: str) -> str:
    """`score` -> `score-job`: a job runs once, so it has one."""
    return f"{job}-job"


def job_task(key: Key, uid: str) -> str:
    """One task per object: a job that was deleted and made again under its name is another one."""
    return f"{key.name}-job-{ids.short_hash(uid.encode())}.{key.namespace}"


def clean_task(key: Key, uid: str, attempt: int) -> str:
    """One task per object and attempt."""
    return f"{key.name}-clean-{ids.short_hash(uid.encode())}-{attempt}.{key.namespace}"


def member(task: str, index: int) -> str:
    """`score-job-1a2b3c4d.default` and 0 -> `score-job-1a2b3c4d.default-0`."""
    return f"{task}-{index}"


def selector(service: str) -> str:
    """The label selector of a service's replicas, for `/scale`."""
    return f"{LABEL_SERVICE}={service}"


def stream_selector(stream: str) -> str:
    """The label selector of a stream's runners, for `/scale`."""
    return f"{LABEL_STREAM}={stream}"


def inputs_hash(inputs: object) -> str:
    """The identity of what a revision was made from."""
    return ids.short_hash(canonical(inputs), 16)


def canonical(value: object) -> bytes:
    """The same bytes for equal values: JSON with sorted keys."""
    return msgspec.json.encode(value, order="deterministic")
