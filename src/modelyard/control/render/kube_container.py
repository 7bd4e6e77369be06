"""What the containers of a unit's or task's pods have in common: environment, mounts, limits, probes."""

import math
from typing import Any

from modelyard.control.ir import names
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Credential, Resources, Unit, Variable
from modelyard.control.render import kube_identity
from modelyard.wire.place import ENV_INDEX, ENV_MASTER, Place
from modelyard.wire.work import WorkSpec

Object = dict[str, Any]
MAIN, FETCH, PROGRAM, WORKER, PROGRESS = "main", "fetch", "program", "worker", "progress"
HTTP_PORT, REPORT_PORT, MASTER_PORT = 8080, 8081, 29500
USER = 65532
PYTHON = "/usr/local/bin/python3"
CACHE = "/var/lib/modelyard/cache"
SCRATCH = "/var/lib/modelyard/scratch"
FETCHED = "/var/lib/modelyard/fetched"
PROGRAM_FOLDER = "/var/lib/modelyard/program"
PIPES = "/var/lib/modelyard/pipes"
RUN = "/run/modelyard"
WORK = "/etc/modelyard"
SECRETS = "/run/secrets/modelyard"
TERMINATION = "/dev/termination-log"
MODEL_ROLE = "model"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
_PROBE_SECONDS = 1
OUR_PREFIX = "MODELYARD_"
_BESIDE_A_WORKER = Resources(
    cpu_request_millis=100, cpu_limit_millis=1000, memory_request_bytes=256 * 2**20, memory_limit_bytes=2**30
)
"""Of ours where a worker in a container of its own has what was declared."""


def program(work: WorkSpec) -> str:
    """The module of the runtime half that does this work."""
    if work.serve is not None:
        return "front"
    if work.prepare is not None:
        return "prepare"
    return "streams" if work.stream is not None or work.clean is not None else "jobs"


def fetches(work: WorkSpec) -> bool:
    """Whether something must be had from elsewhere before the work begins."""
    return any(kube_identity.artifacts(work))


def is_apart(what: Unit | Task) -> bool:
    """Whether the program of a job runs in a container of its own."""
    return what.work.run is not None and bool(what.pod.image)


def worker_command(work: WorkSpec) -> tuple[str, ...]:
    """Of the worker of a Runtime; empty where ours does it, or there is no model."""
    if work.prepare is not None:
        return work.prepare.command
    if work.serve is not None:
        return next((model.command for model in work.serve.models), ())
    scorer = work.score or work.stream
    return scorer.model.command if scorer is not None else ()


def has_worker(what: Unit | Task) -> bool:
    """Whether the worker of a Runtime runs in a container of its own."""
    return bool(what.pod.image and worker_command(what.work))


def needs_fetch(what: Unit | Task) -> bool:
    """Whether our container that comes before all others has something to do."""
    return fetches(what.work) or is_apart(what) or has_worker(what)


def reports(work: WorkSpec) -> bool:
    """Whether it tells how far it is, or what it has compared, while it runs."""
    return work.serve is not None or work.score is not None or work.run is not None or work.stream is not None


def main(what: Unit | Task, image: Object, gateway_digest: str) -> Object:
    """What does the work."""
    work = what.work
    serves = work.serve is not None
    keys = tuple(each for each in what.credentials if each.role != MODEL_ROLE or not fetches(work))
    place = Place(
        work=f"{WORK}/work.json",
        report=f"{RUN}/report.json",
        cache=CACHE,
        scratch=SCRATCH,
        secrets=SECRETS if keys else "",
        listen=f"0.0.0.0:{HTTP_PORT}" if serves else "",
        gateway_digest=gateway_digest if serves else "",
        shadow=f":{names.SHADOW_PORT}" if serves and gateway_digest else "",
        termination=TERMINATION,
        report_listen=f"0.0.0.0:{REPORT_PORT}" if reports(work) and not is_apart(what) else "",
        fetched=FETCHED if work.prepare is not None and fetches(work) else "",
        program=PROGRAM_FOLDER if is_apart(what) else "",
        pipes=PIPES if has_worker(what) else "",
        account=kube_identity.account_of_main(what),
    )
    built = _container(MAIN, what, image, f"modelyard.runtime.{program(work)}")
    built["env"] += _environment(place, _ranks(what))
    built["volumeMounts"] += [*_mounts(what, writable=work.prepare is not None), *_key_mounts(keys)]
    ports = {"http": HTTP_PORT} if serves else {}
    if reports(work) and not is_apart(what):
        ports["report"] = REPORT_PORT
    if ports:
        built["ports"] = [{"name": each, "containerPort": port, "protocol": "TCP"} for each, port in ports.items()]
    return built | _probes(what) if serves else built


def fetch(what: Unit | Task, image: Object) -> Object:
    """What brings artifacts, before the work begins. It alone has the keys of the model's store."""
    keys = tuple(each for each in what.credentials if each.role == MODEL_ROLE)
    place = Place(
        work=f"{WORK}/work.json",
        report=f"{RUN}/fetch.json",
        cache=CACHE,
        scratch=SCRATCH,
        secrets=SECRETS if keys else "",
        termination=TERMINATION,
        fetched=FETCHED if what.work.prepare is not None else "",
        program=PROGRAM_FOLDER if is_apart(what) else "",
        pipes=PIPES if has_worker(what) else "",
        account=kube_identity.account_of_fetch(what),
    )
    built = _container(FETCH, what, image, "modelyard.runtime.fetch")
    built["env"] += _environment(place, [])
    built["volumeMounts"] += [*_mounts(what, writable=True), *_key_mounts(keys)]
    return built


def progress(what: Unit | Task, image: Object) -> Object:
    """What tells how far the program of another container is, and what ours does after it: beside both, until the end.

    It reads what the program says of itself, and has no key.
    """
    place = Place(
        work=f"{WORK}/work.json",
        report=f"{RUN}/report.json",
        cache=CACHE,
        scratch=SCRATCH,
        report_listen=f"0.0.0.0:{REPORT_PORT}",
        program=PROGRAM_FOLDER,
    )
    built = _container(PROGRESS, what, image, "modelyard.runtime.progress")
    built["env"] += _environment(place, [])
    built["volumeMounts"] += [
        {"name": "scratch", "mountPath": SCRATCH, "readOnly": True},
        {"name": "run", "mountPath": RUN, "readOnly": True},
        {"name": "output", "mountPath": PROGRAM_FOLDER, "readOnly": True},
    ]
    return {
        **built,
        "restartPolicy": "Always",
        "ports": [{"name": "report", "containerPort": REPORT_PORT, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": "10m", "memory": "48Mi"},
            "limits": {"cpu": "200m", "memory": "128Mi"},
        },
    }


def security() -> Object:
    """Of a container, as the *restricted* profile demands it, and without a root file system to write to."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def allowed(resources: Resources, *, devices: bool) -> Object:
    """The `resources` of a container. devices: whether it gets those, too: they are limits, and Kubernetes makes the
    requests of them."""
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if resources.cpu_request_millis:
        requests["cpu"] = f"{resources.cpu_request_millis}m"
    if resources.memory_request_bytes:
        requests["memory"] = str(resources.memory_request_bytes)
    if resources.cpu_limit_millis:
        limits["cpu"] = f"{resources.cpu_limit_millis}m"
    if resources.memory_limit_bytes:
        limits["memory"] = str(resources.memory_limit_bytes)
    if devices:
        limits |= {name: str(count) for name, count in resources.devices}
    claims = [{"name": name} for name in resources.claims] if devices else []
    found: Object = {"requests": requests, "limits": limits, "claims": claims}
    return {name: value for name, value in found.items() if value}


def variables(declared: tuple[Variable, ...]) -> list[Object]:
    """Of Secrets only the reference: the kubelet reads them. None of ours can be replaced; a later one counts."""
    found: dict[str, Object] = {}
    for each in declared:
        if each.name.startswith(OUR_PREFIX):
            continue
        if each.secret is None:
            found[each.name] = {"name": each.name, "value": each.value}
            continue
        reference: Object = {"name": each.secret.secret, "key": each.secret.key}
        if each.secret.optional:
            reference["optional"] = True
        found[each.name] = {"name": each.name, "valueFrom": {"secretKeyRef": reference}}
    return list(found.values())


def volume_name(credential: Credential) -> str:
    """Of the volume that holds a Secret."""
    return f"secrets-{credential.role}"


def _container(name: str, what: Unit | Task, image: Object, module: str) -> Object:
    ours = {"HOME", "TMPDIR", "PYTHONUNBUFFERED"}
    alone = not (is_apart(what) or has_worker(what))
    built: Object = {
        "name": name,
        **image,
        "command": [PYTHON, "-m", module],
        "workingDir": SCRATCH,
        "env": [each for each in variables(what.variables) if each["name"] not in ours] if alone else [],
        "volumeMounts": [{"name": "work", "mountPath": WORK, "readOnly": True}],
        "securityContext": security(),
        "terminationMessagePath": TERMINATION,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    mine = _BESIDE_A_WORKER if has_worker(what) else what.resources
    has = allowed(mine, devices=name == MAIN and alone)
    return {**built, "resources": has} if has else built


def _environment(place: Place, more: list[Object]) -> list[Object]:
    fixed = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "PYTHONUNBUFFERED": "1", **place.environment()}
    return [*({"name": name, "value": value} for name, value in fixed.items()), *more]


def _ranks(what: Unit | Task) -> list[Object]:
    """Which member of its task a pod is; of a gang also where the first one listens."""
    if not isinstance(what, Task) or not what.restart:
        return []
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}
    found: list[Object] = [{"name": ENV_INDEX, "valueFrom": index}]
    if what.gang:
        namespace, short = names.kube(what.name)
        master = f"{short}-0.{short}.{namespace}.svc:{MASTER_PORT}"
        found.append({"name": ENV_MASTER, "value": master})
    return found


def _mounts(what: Unit | Task, *, writable: bool) -> list[Object]:
    """writable: the cache of artifacts, which only those write who bring or store them."""
    cache: Object = {"name": "cache", "mountPath": CACHE}
    found: list[Object] = [
        cache if writable else {**cache, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "run", "mountPath": RUN},
    ]
    if what.work.prepare is not None and fetches(what.work):
        found.append({"name": "fetched", "mountPath": FETCHED})
    if is_apart(what):
        found.append({"name": "output", "mountPath": PROGRAM_FOLDER})
    if has_worker(what):
        found.append({"name": "pipes", "mountPath": PIPES})
    return found


def _key_mounts(keys: tuple[Credential, ...]) -> list[Object]:
    return [{"name": volume_name(each), "mountPath": f"{SECRETS}/{each.role}", "readOnly": True} for each in keys]


def _probes(what: Unit | Task) -> Object:
    """Of who serves requests. The start is given as long as the unit says; a model that hangs later is started anew."""
    seconds = what.startup_timeout_seconds if isinstance(what, Unit) else 60.0

    def asks(path: str) -> Object:
        return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 3}

    ready, live = "/v2/health/ready", "/v2/health/live"
    return {
        "startupProbe": {
            **asks(ready),
            "periodSeconds": _PROBE_SECONDS,
            "failureThreshold": max(1, math.ceil(seconds / _PROBE_SECONDS)),
        },
        "readinessProbe": {**asks(ready), "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**asks(live), "periodSeconds": 10, "failureThreshold": 3},
    }
