"""Which fields of a `podTemplate` pods of models may have: what the *restricted* profile allows and replaces nothing of
ours, whatever the namespace would let through.

Everything that is not named here is refused, fields of later releases of Kubernetes included. Source: Kubernetes' Pod
Security Standards, profile "restricted" (v1.34); stricter in that no capability and no sysctl is given.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.base.errors import FieldError
from modelyard.control.ir import names
from modelyard.control.plan.shapes import Check, flag, listed, number, only, shape, text, texts, whatever, words

MAX_BYTES = 65_536
"""Of the whole overlay as JSON: it is recorded with every revision."""
MAIN = "main"
PROGRAM = "program"
"""Of a job whose program has an image of its own, before `main`, which commits what it leaves."""
WORKER = "worker"
"""Of a Runtime with an image, beside `main`."""
RESERVED = frozenset({MAIN, PROGRAM, WORKER, "fetch", "commit", "progress"})
"""Names of containers of ours."""
CACHE = "cache"
"""The one volume of ours that may be another one: a claim keeps fetched artifacts for the next pods."""
RESERVED_VOLUMES = frozenset({"scratch", "run", "work", "fetched", "output", "pipes", "worker-scratch"})
_SECRETS = ("secret-", "secrets-")
"""How names of volumes begin that hold keys."""
OUR_PATHS = (
    *("/var/lib/modelyard", "/run/modelyard", "/etc/modelyard", "/run/secrets", "/var/run"),
    *("/dev", "/proc", "/sys"),
)
_SHARED_MEMORY = "/dev/shm/"  # noqa: S108  in a container it is nobody else's
"""Programs that hand data between processes want more of it."""
_OUR_PREFIXES = (
    *("modelyard.dev/", "batch.kubernetes.io/"),
    # How containers were let out of their profiles before securityContext could say so.
    *("container.apparmor.security.beta.kubernetes.io/", "container.seccomp.security.alpha.kubernetes.io/"),
    "seccomp.security.alpha.kubernetes.io/",
)
_OUR_WORDS = frozenset(
    {"app.kubernetes.io/name", "app.kubernetes.io/managed-by", "kueue.x-k8s.io/queue-name", "pod-template-hash",
     "job-name", "controller-uid"}
)  # fmt: skip
_RESTRICTED = "the restricted Pod Security profile forbids it"
_OWN = "is set by Modelyard"
_PATH = "spec.podTemplate"


def faults(template: Mapping[str, Any], *, program: bool = False) -> tuple[FieldError, ...]:
    """Every field that is not allowed, by its path from `spec` on.

    template: `metadata` and `spec` as declared, in JSON's types. program: whether pods have a container PROGRAM.
    """
    if not template:
        return ()
    found = (*_TEMPLATE(_PATH, template), *_apart(template, program=program))
    if not found and len(names.canonical(template)) > MAX_BYTES:
        return (FieldError(_PATH, f"is larger than {MAX_BYTES // 1024} KiB"),)
    return found


def worker_faults(template: Mapping[str, Any], *, worker: bool) -> tuple[FieldError, ...]:
    """What is said of a container WORKER where there is none. worker: whether there is."""
    spec = template.get("spec")
    if worker or not isinstance(spec, dict):
        return ()
    message = f"{WORKER} is there only where a Runtime's spec.process.image is set"
    named = (path for path, each in _items(spec, "initContainers") if each.get("name") == WORKER)
    return tuple(FieldError(f"{path}.name", message) for path in named)


def _label(path: str, value: Any) -> Iterator[FieldError]:
    yield from texts(path, value)
    for key in value if isinstance(value, dict) else ():
        if isinstance(key, str) and (key in _OUR_WORDS or key.startswith(_OUR_PREFIXES)):
            yield FieldError(f"{path}[{key!r}]", _OWN)


def _capabilities(path: str, value: Any) -> Iterator[FieldError]:
    yield from shape({"drop": listed(text)}, hints={"add": f"{_RESTRICTED}: no capability is added"})(path, value)
    dropped = value.get("drop") if isinstance(value, dict) else None
    if isinstance(dropped, list) and "ALL" not in dropped:
        yield FieldError(f"{path}.drop", f"must contain ALL: {_RESTRICTED}")


def _profile(path: str, value: Any) -> Iterator[FieldError]:
    allowed = shape({"type": only("RuntimeDefault", "Localhost"), "localhostProfile": text}, needed=("type",))
    yield from allowed(path, value)


_SELINUX_TYPES = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SECURITY: Mapping[str, Check] = {
    "runAsNonRoot": only(True),
    "runAsUser": number(1),
    "runAsGroup": number(1),
    "seccompProfile": _profile,
    "appArmorProfile": _profile,
    "seLinuxOptions": shape({"type": only(*_SELINUX_TYPES), "level": text}),
}
_CONTAINER_SECURITY: Mapping[str, Check] = {
    **_SECURITY,
    "allowPrivilegeEscalation": only(False),
    "privileged": only(False),
    "capabilities": _capabilities,
    "procMount": only("Default"),
}
_NO_SYSCTLS = {"sysctls": "is not allowed", "windowsOptions": "is not allowed: pods run on Linux"}
_POD_SECURITY = shape(
    {
        **_SECURITY,
        "fsGroup": number(1),
        "supplementalGroups": listed(number(1)),
        "fsGroupChangePolicy": only("OnRootMismatch", "Always"),
        "supplementalGroupsPolicy": only("Merge", "Strict"),
    },
    hints=_NO_SYSCTLS,
)
_MOUNT = shape(
    {
        "name": text,
        "mountPath": text,
        "subPath": text,
        "subPathExpr": text,
        "readOnly": flag,
        "recursiveReadOnly": text,
        "mountPropagation": only("None", "HostToContainer"),
    },
    needed=("name", "mountPath"),
)


def _mounts(path: str, value: Any) -> Iterator[FieldError]:
    """Beside ours, at places of their own."""
    yield from listed(_MOUNT)(path, value)
    for index, each in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(each, dict):
            continue
        name, place = each.get("name"), each.get("mountPath")
        if isinstance(name, str) and _is_ours(name):
            yield FieldError(f"{path}[{index}].name", f"{name} is a volume of Modelyard; mount one of your own")
        if isinstance(place, str) and _overlaps(place):
            yield FieldError(f"{path}[{index}].mountPath", f"{place} is where Modelyard or the system keeps its things")


def _is_ours(volume: str) -> bool:
    return volume == CACHE or volume in RESERVED_VOLUMES or volume.startswith(_SECRETS)


def _overlaps(place: str) -> bool:
    """Within one of our folders, or above it; also by way of `..`."""
    steps = [each for each in place.split("/") if each not in ("", ".")]
    if not place.startswith("/") or ".." in steps or not steps or ":" in place:
        return True
    clean = "/" + "/".join(steps) + "/"
    if clean == _SHARED_MEMORY:
        return False
    return any(clean.startswith(f"{each}/") or f"{each}/".startswith(clean) for each in OUR_PATHS)


_PORT = shape(
    {"name": text, "containerPort": number(1), "protocol": only("TCP", "UDP", "SCTP")},
    needed=("containerPort",),
    hints={"hostPort": _RESTRICTED, "hostIP": _RESTRICTED},
)


def _action(path: str, value: Any) -> Iterator[FieldError]:
    """A probe or a hook: it may name no other host, by which the kubelet would reach what the pod cannot."""
    yield from whatever(path, value)
    for name, each in value.items() if isinstance(value, dict) else ():
        if name in ("httpGet", "tcpSocket") and isinstance(each, dict) and each.get("host"):
            yield FieldError(f"{path}.{name}.host", _RESTRICTED)


def _hooks(path: str, value: Any) -> Iterator[FieldError]:
    yield from shape({"postStart": _action, "preStop": _action, "stopSignal": text})(path, value)


_SIDECAR: Mapping[str, Check] = {
    "name": text,
    "image": text,
    "imagePullPolicy": only("Always", "IfNotPresent", "Never"),
    "command": listed(text),
    "args": listed(words),
    "workingDir": text,
    "env": listed(whatever),
    "envFrom": listed(whatever),
    "resources": whatever,
    "ports": listed(_PORT),
    "volumeMounts": _mounts,
    "livenessProbe": _action,
    "readinessProbe": _action,
    "startupProbe": _action,
    "lifecycle": _hooks,
    "restartPolicy": only("Always"),
    "securityContext": shape({**_CONTAINER_SECURITY, "readOnlyRootFilesystem": flag}, hints=_NO_SYSCTLS),
    "terminationMessagePath": text,
    "terminationMessagePolicy": only("File", "FallbackToLogsOnError"),
}
_SIDECAR_SHAPE = shape(_SIDECAR, needed=("name", "image"))
_OURS_SHAPE = shape(
    {
        "name": only(MAIN, PROGRAM, WORKER),
        "volumeMounts": _mounts,
        "securityContext": shape({**_CONTAINER_SECURITY, "readOnlyRootFilesystem": only(True)}, hints=_NO_SYSCTLS),
    },
    hints={
        "image": f"{_OWN}, from spec.run.environment.image of a job or spec.process.image of a Runtime",
        "env": f"{_OWN}, use spec.env",
        "envFrom": f"{_OWN}, use spec.env",
        "resources": f"{_OWN}, use spec.resources",
        **dict.fromkeys(("command", "args", "ports", "workingDir", "lifecycle"), _OWN),
        **dict.fromkeys(("livenessProbe", "readinessProbe", "startupProbe"), _OWN),
    },
)


def _container(path: str, value: Any) -> Iterator[FieldError]:
    """A sidecar must say itself what the profile demands of every container; the rest it has from the pod."""
    yield from _SIDECAR_SHAPE(path, value)
    if not isinstance(value, dict):
        return
    name = value.get("name")
    if isinstance(name, str) and name in RESERVED:
        yield FieldError(f"{path}.name", f"{name} is a container of Modelyard; choose another name")
    context = value.get("securityContext", {})
    if not isinstance(context, dict):
        return
    if "allowPrivilegeEscalation" not in context:
        yield FieldError(f"{path}.securityContext.allowPrivilegeEscalation", f"must be false: {_RESTRICTED} otherwise")
    capabilities = context.get("capabilities", {})
    if isinstance(capabilities, dict) and "drop" not in capabilities:
        yield FieldError(f"{path}.securityContext.capabilities.drop", f"must be [ALL]: {_RESTRICTED} otherwise")


def _containers(path: str, value: Any) -> Iterator[FieldError]:
    """Those of `containers`, where `main` may be named to mount volumes in it."""
    yield from listed(lambda at, found: _of_pod((MAIN,), at, found))(path, value)


def _init_containers(path: str, value: Any) -> Iterator[FieldError]:
    """Likewise with `program` and `worker`."""
    yield from listed(lambda at, found: _of_pod((PROGRAM, WORKER), at, found))(path, value)


def _of_pod(ours: tuple[str, ...], path: str, value: Any) -> Iterator[FieldError]:
    mine = isinstance(value, dict) and value.get("name") in ours
    yield from (_OURS_SHAPE if mine else _container)(path, value)


_PROJECTED = shape(
    {
        "defaultMode": number(),
        "sources": listed(
            shape(
                dict.fromkeys(("configMap", "downwardAPI", "secret", "clusterTrustBundle"), whatever),
                hints={"serviceAccountToken": "no token of a ServiceAccount is mounted into pods of models"},
            )
        ),
    }
)
_VOLUME_TYPES: Mapping[str, Check] = {
    **dict.fromkeys(
        ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "secret"), whatever
    ),
    "projected": _PROJECTED,
}
_VOLUME = shape(
    {"name": text, **_VOLUME_TYPES},
    needed=("name",),
    hints={"hostPath": _RESTRICTED, "nfs": f"{_RESTRICTED}, use a persistentVolumeClaim"},
)
_CACHES = frozenset({"persistentVolumeClaim", "ephemeral", "emptyDir"})


def _volume(path: str, value: Any) -> Iterator[FieldError]:
    yield from _VOLUME(path, value)
    if not isinstance(value, dict):
        return
    name, kinds = value.get("name"), [each for each in value if each in _VOLUME_TYPES]
    if len(kinds) != 1 and set(value) <= {"name", *_VOLUME_TYPES}:
        yield FieldError(path, f"expected exactly one of {', '.join(_VOLUME_TYPES)}")
    if name == CACHE and not _CACHES.issuperset(kinds):
        yield FieldError(path, f"{CACHE} keeps artifacts: expected {' or '.join(sorted(_CACHES))}")
    elif isinstance(name, str) and name != CACHE and _is_ours(name):
        yield FieldError(f"{path}.name", f"{name} is a volume of Modelyard; choose another name")


_SPEC = shape(
    {
        "nodeSelector": texts,
        "tolerations": listed(whatever),
        "affinity": whatever,
        "topologySpreadConstraints": listed(whatever),
        "priorityClassName": text,
        "preemptionPolicy": only("Never", "PreemptLowerPriority"),
        "runtimeClassName": text,
        "schedulerName": text,
        "imagePullSecrets": listed(shape({"name": text}, needed=("name",))),
        "resourceClaims": listed(
            shape({"name": text, "resourceClaimName": text, "resourceClaimTemplateName": text}, needed=("name",))
        ),
        "dnsPolicy": only("ClusterFirst", "Default", "None"),
        "dnsConfig": whatever,
        "securityContext": _POD_SECURITY,
        "volumes": listed(_volume),
        "containers": _containers,
        "initContainers": _init_containers,
        "automountServiceAccountToken": only(False),
        "hostUsers": only(False),
        **dict.fromkeys(("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"), only(False)),
    },
    hints={
        "serviceAccountName": f"{_OWN}, use spec.serviceAccountName",
        "serviceAccount": f"{_OWN}, use spec.serviceAccountName",
        "nodeName": "passes the scheduler by; use nodeSelector or affinity",
        "priority": "use priorityClassName",
        "terminationGracePeriodSeconds": _OWN,
        "restartPolicy": _OWN,
        "activeDeadlineSeconds": f"{_OWN}, of a job use spec.activeDeadlineSeconds",
        "ephemeralContainers": "is not allowed",
    },
)
_TEMPLATE = shape({"metadata": shape({"labels": _label, "annotations": _label}), "spec": _SPEC})


def _apart(template: Mapping[str, Any], *, program: bool) -> Iterator[FieldError]:
    """Names that must be there once, and mounts of volumes that must be there."""
    spec = template.get("spec")
    if not isinstance(spec, dict):
        return
    containers = [*_items(spec, "containers"), *_items(spec, "initContainers")]
    volumes = [each.get("name") for _, each in _items(spec, "volumes")]
    for where, items in (("containers", containers), ("volumes", _items(spec, "volumes"))):
        seen: set[Any] = set()
        for path, each in items:
            name = each.get("name")
            if isinstance(name, str) and name in seen:
                yield FieldError(f"{path}.name", f"{name} is there twice among the {where}")
            seen.add(name if isinstance(name, str) else None)
    for path, each in containers:
        if each.get("name") == PROGRAM and not program:
            yield FieldError(f"{path}.name", f"{PROGRAM} is there only where spec.run.environment.image is set")
        for at, mount in _items(each, "volumeMounts", path):
            name = mount.get("name")
            if isinstance(name, str) and not _is_ours(name) and name not in volumes:
                yield FieldError(f"{at}.name", f"there is no volume {name} in {_PATH}.spec.volumes")


def _items(holder: Mapping[str, Any], field: str, path: str = f"{_PATH}.spec") -> list[tuple[str, dict[str, Any]]]:
    found = holder.get(field)
    items = found if isinstance(found, list) else []
    return [(f"{path}.{field}[{index}]", each) for index, each in enumerate(items) if isinstance(each, dict)]
