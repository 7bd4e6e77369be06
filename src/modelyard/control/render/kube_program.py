"""A job's program in a container of the user's own image, before ours commits what it left.

See `wire.place.PROGRAM_OUTPUT`; names and meanings of the variables are those of `runtime.jobs.program` (torchrun's).
"""

from typing import Any

from modelyard.control.ir import names
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.render import kube_container as containers
from modelyard.control.render.kube_container import INDEX_ANNOTATION, MAIN, MASTER_PORT, PROGRAM, SCRATCH
from modelyard.wire.place import ENV_ATTEMPT, PROGRAM_OUTPUT, PROGRAM_PROGRESS
from modelyard.wire.work import RunWork

Object = dict[str, Any]
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"


def container(what: Unit | Task) -> Object | None:
    """None where ours runs the program, or there is none. It gets no key of ours, and nothing of ours to read."""
    run = what.work.run
    if run is None or not containers.is_apart(what) or not isinstance(what, Task):
        return None
    ours = _environment(what, run)
    taken = {each["name"] for each in ours}
    built: Object = {
        "name": PROGRAM,
        "image": what.pod.image,
        "command": list(run.command),
        "workingDir": run.directory or SCRATCH,
        "env": [*(each for each in containers.variables(what.variables) if each["name"] not in taken), *ours],
        "volumeMounts": [
            {"name": "output", "mountPath": containers.PROGRAM_FOLDER},
            {"name": "scratch", "mountPath": SCRATCH},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    has = containers.allowed(what.resources, devices=True)
    return {**built, "resources": has} if has else built


def attempted(template: Object, attempt: int) -> Object:
    """The recorded template of a gang for its next attempt."""
    spec = dict(template["spec"])
    told = {MAIN: (ENV_ATTEMPT, str(attempt)), PROGRAM: (_RESTARTS, str(attempt - 1))}
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [_told(each, told.get(each["name"])) for each in spec[field]]
    return {**template, "spec": spec}


def _told(found: Object, variable: tuple[str, str] | None) -> Object:
    if variable is None:
        return found
    name, value = variable
    others = [each for each in found.get("env", ()) if each["name"] != name]
    return {**found, "env": [*others, {"name": name, "value": value}]}


def _environment(what: Task, run: RunWork) -> list[Object]:
    folder = containers.PROGRAM_FOLDER
    rank: Object = {"value": "0"}
    if what.gang:
        rank = {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}}
    fixed = {
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "OUTPUT_DIR": f"{folder}/{PROGRAM_OUTPUT}",
        "PROGRESS_FILE": f"{folder}/{PROGRAM_PROGRESS}",
        "WORLD_SIZE": str(run.nodes),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        _RESTARTS: "0",
        "TORCHELASTIC_RUN_ID": run.job,
    }
    if run.checkpoint:
        fixed["CHECKPOINT_URI"] = run.checkpoint
    if what.gang:
        namespace, short = names.kube(what.name)
        fixed |= {"MASTER_ADDR": f"{short}-0.{short}.{namespace}.svc", "MASTER_PORT": str(MASTER_PORT)}
    ranks = [{"name": name, **rank} for name in ("RANK", "GROUP_RANK")]
    return [*ranks, *({"name": name, "value": value} for name, value in fixed.items())]
