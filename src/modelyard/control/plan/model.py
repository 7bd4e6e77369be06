"""Model: one prepare task per spec generation and refresh annotation; its report becomes the status.

The artifact is read in a process of its own. A failure that may heal is tried again with growing pauses; what was found
out before stays in the status, so services of the model keep running while a refresh is under way or has failed.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard.api.fields import Tensors
from modelyard.api.model import Model, ModelStatus
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir import names
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import ObservedTask
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Credential, Resources, Variable
from modelyard.control.ir.values import Key
from modelyard.control.plan import compute, local_path, pods, runtimes, status
from modelyard.control.plan.views import ModelView, Outcome
from modelyard.wire.report import Failure, PrepareReport
from modelyard.wire.work import BUILTIN_FORMATS, PrepareWork, TensorSpec, WorkSpec

KIND = "Model"
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0
_FETCH_SECONDS = 3600.0
"""What is far away takes longer."""


def key(model: Model) -> Key:
    """The owner of everything that is made for a Model."""
    return Key(kind=KIND, namespace=model.metadata.namespace, name=model.metadata.name)


def desire(view: ModelView, now: float) -> Outcome:
    """The task that must run, and the status that follows from what is known."""
    model = view.model
    refresh = model.metadata.annotations.get(names.ANNOTATION_REFRESH, "")
    prepared = model.status.prepared
    if prepared and (prepared.generation, prepared.refresh) == (model.metadata.generation, refresh):
        return _outcome(model, _Finding(body=_stored(model.status), condition=_ready(model.status.digest)), now)
    selection, demands = _selection(view), pods.of(model.spec)
    wrong = (
        pods.refusal(model.spec, view.capabilities)
        or local_path.of_model(model, view.capabilities)
        or pods.worker_refusal(selection, demands.template, view.capabilities)
    )
    if wrong is not None:
        condition = Condition(type="Ready", status=Status.FALSE, reason=wrong.reason, message=wrong.message)
        return _outcome(model, _Finding(body=_stored(model.status), condition=condition), now)
    work, pod = _work(view, selection.command), pods.pod(demands, view.capabilities, image=selection.image)
    needs = compute.resources(selection.resources) if selection.image else Resources()
    variables = compute.variables(selection.env) if selection.image else ()
    apart = [[selection.image, needs, variables]] if selection.image else []
    asked = [model.metadata.generation, refresh, work, *apart]
    attempts = {names.prepare_task(key(model), asked, task.attempt): task for task in view.observed.tasks}
    current = max(
        (task for name, task in attempts.items() if name == task.name), key=lambda task: task.attempt, default=None
    )
    wanted = _Asked(parts=asked, work=work, refresh=refresh, pod=pod, resources=needs, variables=variables)
    return _outcome(model, _find(model, current, now), now, wanted)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finding:
    """What is known: the status without conditions, the condition, and which attempt must exist from now on."""

    body: dict[str, Any]
    condition: Condition
    attempt: int = 0
    wake_at: float | None = None
    answered: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    parts: list[Any]
    work: WorkSpec
    refresh: str
    pod: Pod
    resources: Resources
    variables: tuple[Variable, ...]


def _find(model: Model, task: ObservedTask | None, now: float) -> _Finding:
    body = _stored(model.status)
    if task is None or task.finished_at is None:
        return _Finding(body=body, condition=_reading(model, task), attempt=task.attempt if task else 1)
    report = task.report
    if report is not None and report.prepare is not None:
        # The task stays until the stored status shows its result: a lost write then costs nothing.
        return _Finding(
            body=_found(report.prepare), condition=_ready(report.prepare.digest), attempt=task.attempt, answered=True
        )
    failure = (report.failure if report else None) or Failure(
        reason=Reason.LOAD_FAILED, message=task.message or "reading the artifact ended without a report", retry=True
    )
    keeps = f"; {model.status.digest} keeps being served" if model.status.digest else ""
    condition = Condition(
        type="Ready", status=Status.FALSE, reason=_reason(failure.reason), message=failure.message + keeps
    )
    if not failure.retry:
        return _Finding(body=body, condition=condition, attempt=task.attempt)
    due = task.finished_at + pause(task.attempt)
    if now >= due:
        return _Finding(body=body, condition=condition, attempt=task.attempt + 1)
    return _Finding(body=body, condition=condition, attempt=task.attempt, wake_at=due)


def pause(attempt: int) -> float:
    """Seconds between the end of an attempt and the next one: 2, 4, 8 ... 60."""
    return float(min(_FIRST_PAUSE_SECONDS * 2 ** min(attempt - 1, 10), _LONGEST_PAUSE_SECONDS))


def _outcome(model: Model, finding: _Finding, now: float, asked: _Asked | None = None) -> Outcome:
    generation = model.metadata.generation
    found = (finding.condition,)
    body = finding.body
    if asked is not None and finding.answered:
        body = {**body, "prepared": {"generation": generation, "refresh": asked.refresh}}
    tasks: tuple[Task, ...] = ()
    if asked is not None:
        owner = key(model)
        name = names.prepare_task(owner, asked.parts, finding.attempt)
        task = Task(
            name=name,
            owner=owner,
            work=asked.work,
            attempt=finding.attempt,
            credentials=credentials("model", model.spec.credentials),
            pod=asked.pod,
            resources=asked.resources,
            variables=asked.variables,
        )
        tasks = (msgspec.structs.replace(task, deadline_seconds=_FETCH_SECONDS) if "://" in model.spec.uri else task,)
    stamped = status.conditions(found, model.status.conditions, generation, now)
    return Outcome(
        desired=Desired(tasks=tasks),
        status=status.status(body, stamped, generation),
        events=status.events(found, model.status.conditions),
        wake_at=finding.wake_at,
    )


def _selection(view: ModelView) -> runtimes.Selection:
    """The Runtime that reads it, where it needs one and there is one."""
    declared = view.model.spec.format
    if declared and declared not in BUILTIN_FORMATS:
        found = runtimes.select(declared, None, view.runtimes)
        if isinstance(found, runtimes.Selection):
            return found
    return runtimes.Selection()


def _work(view: ModelView, command: tuple[str, ...]) -> WorkSpec:
    spec = view.model.spec
    return WorkSpec(
        prepare=PrepareWork(
            uri=spec.uri,
            digest=spec.digest or "",
            format=spec.format or "",
            format_version=spec.format_version or "",
            trust=spec.trust or "",
            inputs=tensor_specs(spec.inputs),
            outputs=tensor_specs(spec.outputs),
            command=command,
        )
    )


def tensor_specs(tensors: Tensors | None) -> tuple[TensorSpec, ...]:
    """Declared or found tensors in the words of the runtime half."""
    return tuple(TensorSpec(name=each.name, datatype=each.datatype, shape=each.shape) for each in tensors or ())


def credentials(role: str, secret: str | None) -> tuple[Credential, ...]:
    """None or one."""
    return (Credential(role=role, secret=secret),) if secret else ()


def _reading(model: Model, task: ObservedTask | None) -> Condition:
    """While a failed attempt is repeated, its failure stays the news: statuses must not flap."""
    troubles = [each.trouble for each in task.members if each.trouble] if task else []
    latest = max(troubles, key=lambda each: each.since, default=None)
    if latest is not None:
        reason = Reason(latest.reason) if latest.reason in Reason.__members__.values() else Reason.CRASHED
        message = f"reading {model.spec.uri}: {latest.message}"
        return Condition(type="Ready", status=Status.FALSE, reason=reason, message=message)
    last = next((condition for condition in model.status.conditions or () if condition.type == "Ready"), None)
    if task is not None and task.attempt > 1 and last is not None and last.status == "False":
        return Condition(type="Ready", status=Status.FALSE, reason=_reason(last.reason), message=last.message)
    return Condition(type="Ready", status=Status.UNKNOWN, reason=Reason.PREPARING, message=f"reading {model.spec.uri}")


def _ready(digest: str | None) -> Condition:
    return Condition(type="Ready", status=Status.TRUE, reason=Reason.PREPARED, message=f"content {digest}")


def _reason(word: str) -> Reason:
    """Reports are not trusted: an unknown reason becomes a known one."""
    return Reason(word) if word in Reason.__members__.values() else Reason.LOAD_FAILED


def _stored(found: ModelStatus) -> dict[str, Any]:
    return found.model_dump(
        by_alias=True, exclude_none=True, mode="json", exclude={"conditions", "observed_generation"}
    )


def _found(report: PrepareReport) -> dict[str, Any]:
    def tensors(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in specs]

    return {
        "digest": report.digest,
        "sizeBytes": report.size_bytes,
        "format": report.format,
        "formatVersion": report.format_version or None,
        "inputs": tensors(report.inputs) or None,
        "outputs": tensors(report.outputs) or None,
    }
