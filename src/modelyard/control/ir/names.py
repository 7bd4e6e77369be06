"""Every derived name, label and annotation. Children end in their kind."""

import msgspec

from modelyard.base import ids
from modelyard.control.ir.values import Key

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_SERVICE = "modelyard.dev/service"
LABEL_JOB = "modelyard.dev/job"
LABEL_STREAM = "modelyard.dev/stream"
LABEL_MODEL = "modelyard.dev/model"
LABEL_UNIT = "modelyard.dev/unit"
LABEL_TASK = "modelyard.dev/task"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
LABEL_ZONE = "topology.kubernetes.io/zone"
OWNER_LABELS = {"ModelService": LABEL_SERVICE, "ModelJob": LABEL_JOB, "ModelStream": LABEL_STREAM, "Model": LABEL_MODEL}
"""On what is made for an object, by its kind; the value is its name."""
POD_NAME = "modelyard-model"
"""Value of LABEL_NAME on all pods of units and tasks."""
LABEL_INPUTS = "modelyard.dev/inputs-hash"
ANNOTATION_REFRESH = "modelyard.dev/refresh"
ANNOTATION_RESTART = "modelyard.dev/restart"
ANNOTATION_JOB = "modelyard.dev/job"
ANNOTATION_JOB_UID = "modelyard.dev/job-uid"
ANNOTATION_METRICS = "modelyard.dev/metrics"
ANNOTATION_WORK = "modelyard.dev/work"
"""On pods: their WorkSpec, which they get as a file."""
ANNOTATION_UNIT = "modelyard.dev/unit-spec"
ANNOTATION_TASK = "modelyard.dev/task-spec"
"""On what runs a unit or task: all of it, so that it can be observed by whoever comes next."""
ANNOTATION_ASKED = "modelyard.dev/asked"
"""How many replicas or members were last asked for; an autoscaler, or somebody, may have changed the number since."""
ANNOTATION_ATTEMPT = "modelyard.dev/attempt"
"""On the Service of a gang: which attempt of all members together is, or is to be, made. From 1."""
ANNOTATION_BEGUN = "modelyard.dev/begun"
FINALIZER_CLEAN = "modelyard.dev/clean"
"""Keeps a stream until what it has left at its broker is removed."""
MANAGER = "modelyard"
FIELD_MANAGER = "modelyard-operator"
"""Of what is applied to Kubernetes."""
_LONGEST_KUBE = 52
SHADOW_SOCKET = "shadow.sock"
"""In the run folder of a server: where replicas that get copies of requests ask the revision that serves."""
SHADOW_PORT = 8091
"""The same, of gateways in a cluster."""


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


def kube(name: str) -> tuple[str, str]:
    """Namespace and name of what runs a unit or task: `iris-svc-00003.default` -> `default`, `iris-svc-00003`.

    At most 52 characters: pods, their host names and labels have it in front of theirs.
    """
    short, _, namespace = name.rpartition(".")
    if len(short) > _LONGEST_KUBE:
        short = f"{short[: _LONGEST_KUBE - 9].rstrip('-')}-{ids.short_hash(short.encode())}"
    return namespace, short


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
