"""What runs a unit or task on Kubernetes, around its recorded pod template.

Units that serve are Deployments whose template never changes, so that nothing is ever rolled. Streams are ReplicaSets:
what their pods must know changes while they run and is for pods that start later, which a Deployment would answer by
replacing all. A Job's template cannot be changed at all.
"""

import math
from typing import Any

from modelyard.control.ir import names
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Value
from modelyard.control.render.kube import owner_reference
from modelyard.control.render.kube_container import (
    FETCH,
    HTTP_PORT,
    MAIN,
    MASTER_PORT,
    REPORT_PORT,
    needs_fetch,
    reports,
)
from modelyard.control.render.kube_pod import labels, selector
from modelyard.control.render.kube_program import attempted
from modelyard.wire import work as wire
from modelyard.wire.work import WorkSpec

Object = dict[str, Any]
FINAL_STATUS = 3
"""Exit status of work that cannot be done whoever tries."""
_MOST_FAILURES = 2**31 - 1
"""Whoever planned a task counts its failures and ends it; Kubernetes must not."""
_PROGRESS_SECONDS = 600
INSTALLATION = {names.LABEL_NAME: "modelyard"}
GATEWAY, OPERATOR = "gateway", "operator"
_COMPONENT = "app.kubernetes.io/component"
"""As `render.install` labels our own pods."""


class Around(Value, frozen=True, kw_only=True):
    """What a workload is made with. template: the recorded one. owner: the stored object that it belongs to."""

    template: Object
    owner: Object


def unit(what: Unit, around: Around) -> Object:
    """A Deployment, or of a stream a ReplicaSet, with no replicas: they come with `resize`, after the companions."""
    if what.work.stream is not None:
        return _workload(what, around, "ReplicaSet", {})
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    more = {"strategy": strategy, "revisionHistoryLimit": 0, "progressDeadlineSeconds": _PROGRESS_SECONDS}
    return _workload(what, around, "Deployment", more)


def resize(held: Object, replicas: int, told: tuple[WorkSpec, tuple[int, ...]] | None = None) -> list[Object]:
    """A JSON patch of the stored workload, as long as what was last asked for is what the decision rested on.

    Not of a version: its status changes all the time. told: of a stream the work of pods that start from now on, and
    what has begun.
    """
    found = [*_unchanged(held), _annotate(names.ANNOTATION_ASKED, str(replicas)), _set("/spec/replicas", replicas)]
    if told is not None:
        work, begun = told
        annotations = "/spec/template/metadata/annotations"
        found.append(_annotate(names.ANNOTATION_BEGUN, ",".join(map(str, begun))))
        found.append(_annotate(names.ANNOTATION_WORK, wire.encode(work).decode(), annotations))
    return found


def companions(what: Unit, holder: Object, namespace: str) -> tuple[Object, ...]:
    """What a unit's pods need beside them, held by its stored workload. namespace: of operator and gateway."""
    return (network_policy(what, holder, namespace), disruption_budget(what, holder))


def job_companions(what: Task, owner: Object, namespace: str) -> tuple[Object, ...]:
    """What must be there before a Job, held by the stored object that it is for: those that once prepare or clean up
    listen to nobody."""
    if not what.restart:
        return ()
    policy = network_policy(what, owner, namespace)
    return (policy, meeting_place(what, owner)) if what.gang else (policy,)


def disruption_budget(what: Unit, holder: Object) -> Object:
    """One pod at a time is moved. A single one is, too: it must not keep a machine from being drained."""
    return {
        **_head("policy/v1", "PodDisruptionBudget", what, holder),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(what)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policy(what: Unit | Task, holder: Object, namespace: str) -> Object:
    """Requests come from the gateway alone, and the operator alone reads reports; members of a gang find each other."""
    rules: list[Object] = []
    if what.work.serve is not None:
        rules.append(_ingress(namespace, GATEWAY, HTTP_PORT))
    if reports(what.work):
        rules.append(_ingress(namespace, OPERATOR, REPORT_PORT))
    if isinstance(what, Task) and what.gang:
        rules.append({"from": [{"podSelector": {"matchLabels": selector(what)}}]})
    return {
        **_head("networking.k8s.io/v1", "NetworkPolicy", what, holder),
        "spec": {
            "podSelector": {"matchLabels": selector(what)},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        },
    }


def next_attempt(service: Object, attempt: int) -> Object:
    """A merge patch of the very version of a gang's Service."""
    metadata = {"resourceVersion": service["metadata"]["resourceVersion"]}
    return {"metadata": {**metadata, "annotations": {names.ANNOTATION_ATTEMPT: str(attempt)}}}


def job(what: Task, around: Around, attempt: int = 1) -> Object:
    """A Job; started suspended if nobody is to work yet, or if Kueue says when. attempt: of a gang."""
    spec = _gang(what) if what.gang else _crew(what) if what.restart else _once()
    if what.deadline_seconds:
        spec["activeDeadlineSeconds"] = math.ceil(what.deadline_seconds)
    if what.pod.queue or not what.parallelism:
        spec["suspend"] = True
    head = _head("batch/v1", "Job", what, around.owner)
    if what.pod.queue:
        head["metadata"]["labels"][names.LABEL_QUEUE] = what.pod.queue
    head["metadata"]["annotations"] = {
        names.ANNOTATION_TASK: _json(what),
        names.ANNOTATION_ASKED: str(what.parallelism),
        **({names.ANNOTATION_ATTEMPT: str(attempt)} if what.gang else {}),
    }
    template = attempted(around.template, attempt) if attempt > 1 else around.template
    return {**head, "spec": {**spec, "podReplacementPolicy": "Failed", "template": template}}


def adjust(held: Object, what: Task, parallelism: int) -> list[Object]:
    """A JSON patch as of `resize`: members leave from the highest index. None is a suspended Job, since one without
    completions would be done; where Kueue says when, one stays asked for."""
    members = max(1, parallelism)
    found = [*_unchanged(held), _annotate(names.ANNOTATION_ASKED, str(parallelism))]
    found += [_set("/spec/parallelism", members), _set("/spec/completions", members)]
    if not what.pod.queue:
        found.append(_set("/spec/suspend", not parallelism))
    return found


def meeting_place(what: Task, holder: Object) -> Object:
    """The headless Service by whose name members of a gang find the first one, ready or not."""
    return {
        **_head("v1", "Service", what, holder),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(what),
            "ports": [{"name": "master", "port": MASTER_PORT, "protocol": "TCP"}],
        },
    }


def _once() -> Object:
    """One pod, whose end is the task's; one that had to make room is no end."""
    return {"backoffLimit": 0, "podFailurePolicy": {"rules": [_disrupted("Ignore")]}}


def _crew(what: Task) -> Object:
    """Any number of pods that do the same work; it is done when one of them says so."""
    members = max(1, what.parallelism)
    return {
        "completionMode": "Indexed",
        "completions": members,
        "parallelism": members,
        "backoffLimit": _MOST_FAILURES,
        "successPolicy": {"rules": [{"succeededCount": 1}]},
        "podFailurePolicy": {"rules": [*_final(what), _disrupted("Ignore")]},
    }


def _gang(what: Task) -> Object:
    """All of them or none: whatever happens to one ends the Job, and the next one is made by the driver."""
    return {
        "completionMode": "Indexed",
        "completions": what.parallelism,
        "parallelism": what.parallelism,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [*_final(what), _disrupted("FailJob")]},
    }


def _final(what: Task) -> list[Object]:
    """Only containers that there are may be named."""
    containers = (MAIN, FETCH) if needs_fetch(what) else (MAIN,)
    codes = ({"containerName": name, "operator": "In", "values": [FINAL_STATUS]} for name in containers)
    return [{"action": "FailJob", "onExitCodes": each} for each in codes]


def _disrupted(action: str) -> Object:
    return {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _unchanged(held: Object) -> list[Object]:
    """Tests: the same object, and what was last asked for, unless somebody has removed our note of it."""
    found: list[Object] = [{"op": "test", "path": "/metadata/uid", "value": held["metadata"]["uid"]}]
    annotations = held["metadata"].get("annotations")
    if annotations is None:
        found.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    elif names.ANNOTATION_ASKED in annotations:
        test = _annotate(names.ANNOTATION_ASKED, annotations[names.ANNOTATION_ASKED])
        found.append({**test, "op": "test"})
    return found


def _annotate(name: str, value: str, at: str = "/metadata/annotations") -> Object:
    return _set(f"{at}/{name.replace('/', '~1')}", value)


def _set(path: str, value: Any) -> Object:
    """Of a JSON patch: `add` replaces what is there."""
    return {"op": "add", "path": path, "value": value}


def _workload(what: Unit, around: Around, kind: str, more: Object) -> Object:
    head = _head("apps/v1", kind, what, around.owner)
    head["metadata"]["annotations"] = {
        names.ANNOTATION_UNIT: _json(what),
        names.ANNOTATION_ASKED: "0",
        **({names.ANNOTATION_BEGUN: ""} if what.work.stream is not None else {}),
    }
    spec = {"replicas": 0, **more, "selector": {"matchLabels": selector(what)}, "template": around.template}
    return {**head, "spec": spec}


def _head(api_version: str, kind: str, what: Unit | Task, holder: Object) -> Object:
    namespace, short = names.kube(what.name)
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": short,
            "namespace": namespace,
            "labels": labels(what),
            "ownerReferences": [owner_reference(holder)],
        },
    }


def _ingress(namespace: str, component: str, port: int) -> Object:
    return {
        "from": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "podSelector": {"matchLabels": {**INSTALLATION, _COMPONENT: component}},
            }
        ],
        "ports": [{"port": port, "protocol": "TCP"}],
    }


def _json(what: Unit | Task) -> str:
    return names.canonical(what).decode()
