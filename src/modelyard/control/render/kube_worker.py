"""The worker of a Runtime in a container of the user's own image, beside ours, which speaks to it by two FIFOs.

See `wire.place.PIPE_REQUESTS`. It starts before ours and is ended after it, so that a Job is over when ours is.
"""

from typing import Any

from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.render import kube_container as containers
from modelyard.control.render.kube_container import CACHE, PIPES, SCRATCH, WORKER
from modelyard.wire.place import ENV_MODEL, ENV_PIPES, PIPE_MODEL, THREAD_VARIABLES
from modelyard.wire.work import WorkSpec

Object = dict[str, Any]


def container(what: Unit | Task) -> Object | None:
    """None where there is none. It gets no key of ours: the artifact to read, the pipes, and scratch of its own."""
    if not containers.has_worker(what):
        return None
    fixed = {"HOME": SCRATCH, "TMPDIR": SCRATCH, ENV_MODEL: f"{PIPES}/{PIPE_MODEL}", ENV_PIPES: PIPES}
    declared = [each for each in containers.variables(what.variables) if each["name"] not in fixed]
    chosen = {each["name"] for each in declared}
    counts = dict.fromkeys(THREAD_VARIABLES, str(_threads(what.work)))
    suggested = {name: value for name, value in counts.items() if name not in chosen}
    built: Object = {
        "name": WORKER,
        "image": what.pod.image,
        "restartPolicy": "Always",
        "command": list(containers.worker_command(what.work)),
        "env": [*declared, *({"name": name, "value": value} for name, value in {**suggested, **fixed}.items())],
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE, "readOnly": True},
            {"name": "worker-scratch", "mountPath": SCRATCH},
            {"name": "pipes", "mountPath": PIPES, "readOnly": True},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    has = containers.allowed(what.resources, devices=True)
    return {**built, "resources": has} if has else built


def _threads(work: WorkSpec) -> int:
    """As HELLO says."""
    holder = work.serve or work.score or work.stream
    return holder.threads if holder is not None else 1
