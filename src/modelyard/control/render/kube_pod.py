"""The pod template of a unit or task. It meets the *restricted* Pod Security profile and is recorded once.

The WorkSpec is an annotation that the container gets as a file, so that template and work are one thing that nobody
changes apart. Who has the keys of a model's store (`fetch`) never loads a model.
"""

import math
from typing import Any

from modelyard import __version__
from modelyard.control.ir import names
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Value
from modelyard.control.render import kube_container as containers
from modelyard.control.render import kube_identity, kube_program, kube_worker
from modelyard.control.render.kube_container import FETCH, MAIN, PROGRAM, PROGRESS, USER, WORKER
from modelyard.control.render.overlay import merge
from modelyard.wire import work as wire

Object = dict[str, Any]
LONGEST_WORK = 200 * 2**10
"""Bytes; annotations of one object may have 256 KiB together."""
_DRAIN_MARGIN_SECONDS = 10
"""For what a process does before it drains and after, and for the kubelet."""
_RUN_BYTES = "16Mi"
_PIPES_BYTES = "1Mi"


class PodSettings(Value, frozen=True, kw_only=True):
    """What holds for all pods of an installation.

    image_prefix: of our images, registry and folder, such as `registry.example/modelyard/`. pull_secrets: names of
    Secrets in the namespace of each pod. namespace: of the operator and the gateway.
    """

    image_prefix: str = "modelyard/"
    version: str = __version__
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    namespace: str = "modelyard-system"

    def image(self, name: str) -> Object:
        """Fields of a container that runs one of our images."""
        return {"image": f"{self.image_prefix}{name}:{self.version}", "imagePullPolicy": self.pull_policy}


def template(what: Unit | Task, settings: PodSettings, gateway_digest: str = "") -> Object:
    """metadata and spec. gateway_digest: the SHA-256 of what the gateway shows to the unit, in hexadecimal."""
    ours = _ours(what, settings, gateway_digest)
    return _keep(merge(ours, what.pod.overlay), ours)


def labels(what: Unit | Task) -> dict[str, str]:
    """On everything that is made for a unit or task, pods included."""
    _, short = names.kube(what.name)
    return {
        names.LABEL_NAME: names.POD_NAME,
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.OWNER_LABELS[what.owner.kind]: what.owner.name,
        names.LABEL_UNIT if isinstance(what, Unit) else names.LABEL_TASK: short,
    }


def selector(what: Unit | Task) -> dict[str, str]:
    """Labels that pods of this unit or task have, and no others of the namespace."""
    _, short = names.kube(what.name)
    return {names.LABEL_UNIT if isinstance(what, Unit) else names.LABEL_TASK: short}


def _ours(what: Unit | Task, settings: PodSettings, gateway_digest: str) -> Object:
    runtime = settings.image("runtime")
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _grace(what),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [containers.main(what, runtime, gateway_digest)],
        "volumes": _volumes(what),
    }
    if containers.needs_fetch(what):
        spec["initContainers"] = [containers.fetch(what, runtime)]
    worker = kube_worker.container(what)
    if worker is not None:
        spec["initContainers"].append(worker)
    program = kube_program.container(what)
    if program is not None:
        spec["initContainers"] += [containers.progress(what, runtime), program]
    if what.pod.service_account:
        spec["serviceAccountName"] = what.pod.service_account
    if settings.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if isinstance(what, Unit):
        spec["topologySpreadConstraints"] = _spread(what)
    else:
        spec["restartPolicy"] = "Never"
        if what.gang:
            spec["subdomain"] = names.kube(what.name)[1]
    work = wire.encode(what.work).decode()
    metadata: Object = {
        "labels": {**labels(what), **kube_identity.labels(what)},
        "annotations": {names.ANNOTATION_WORK: work, **kube_identity.annotations(what)},
    }
    return {"metadata": metadata, "spec": spec}


def _grace(what: Unit | Task) -> int:
    if isinstance(what, Unit):
        return math.ceil(what.drain_seconds) + _DRAIN_MARGIN_SECONDS
    return max(1, math.ceil(what.grace_seconds))


def _volumes(what: Unit | Task) -> list[Object]:
    path = f"metadata.annotations['{names.ANNOTATION_WORK}']"
    found: list[Object] = [
        {"name": "work", "downwardAPI": {"items": [{"path": "work.json", "fieldRef": {"fieldPath": path}}]}},
        {"name": "cache", "emptyDir": {}},  # a volume `cache` of the overlay replaces it
        {"name": "scratch", "emptyDir": {}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": _RUN_BYTES}},
    ]
    if what.work.prepare is not None and containers.fetches(what.work):
        found.append({"name": "fetched", "emptyDir": {}})
    if containers.is_apart(what):
        found.append({"name": "output", "emptyDir": {}})
    if containers.has_worker(what):
        found.append({"name": "pipes", "emptyDir": {"medium": "Memory", "sizeLimit": _PIPES_BYTES}})
        found.append({"name": "worker-scratch", "emptyDir": {}})
    for credential in what.credentials:
        secret = {"secretName": credential.secret, "defaultMode": 0o440}
        found.append({"name": containers.volume_name(credential), "secret": secret})
    return found


def _spread(unit: Unit) -> list[Object]:
    """Over zones and machines as far as there is room; a declared constraint of the same key replaces it."""
    return [
        {
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(unit)},
        }
        for key in (names.LABEL_ZONE, "kubernetes.io/hostname")
    ]


def _keep(merged: Object, ours: Object) -> Object:
    """The overlay was checked when it was declared; what the platform rests on does not depend on that.

    Which containers get a cloud's token is what somebody may want otherwise.
    """
    work = {names.ANNOTATION_WORK: ours["metadata"]["annotations"][names.ANNOTATION_WORK]}
    metadata = {
        **merged["metadata"],
        "labels": {**merged["metadata"]["labels"], **ours["metadata"]["labels"]},
        "annotations": {**merged["metadata"]["annotations"], **work},
    }
    spec = {**merged["spec"], "automountServiceAccountToken": False}
    for field in ("serviceAccountName", "restartPolicy", "terminationGracePeriodSeconds", "subdomain"):
        if field in ours["spec"]:
            spec[field] = ours["spec"][field]
    for field in ("containers", "initContainers"):
        mine = {each["name"]: each for each in ours["spec"].get(field, ())}
        if field in spec:
            spec[field] = [_keep_container(each, mine.get(each["name"])) for each in spec[field]]
    kept = {each["name"]: each for each in ours["spec"]["volumes"] if each["name"] != "cache"}
    spec["volumes"] = [kept.get(each["name"], each) for each in spec["volumes"]]
    return {"metadata": metadata, "spec": spec}


def _keep_container(merged: Object, ours: Object | None) -> Object:
    if ours is None or ours["name"] not in (MAIN, FETCH, PROGRAM, WORKER, PROGRESS):
        return merged
    fixed: Object = {
        field: ours[field] for field in ("image", "command", "env", "terminationMessagePath") if field in ours
    }
    mounts = {each["mountPath"]: each for each in (*merged["volumeMounts"], *ours["volumeMounts"])}
    context = {**merged["securityContext"], **ours["securityContext"]}
    return {**merged, **fixed, "volumeMounts": list(mounts.values()), "securityContext": context}
