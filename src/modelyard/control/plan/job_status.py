"""What is said about a job: conditions, progress and counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelyard.api.job import ModelJob, ModelJobStatus
from modelyard.base import durations
from modelyard.base.clock import micro_timestamp, timestamp
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.observed import ObservedTask
from modelyard.control.plan import compute, pods, status
from modelyard.control.plan.enforcement import enforced
from modelyard.control.plan.views import JobView, Outcome
from modelyard.wire.report import JobReport


class State(StrEnum):
    """WAITING: for what it refers to. RUNNING: its task exists, though perhaps nobody works at this moment."""

    WAITING = "Waiting"
    SUSPENDED = "Suspended"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What was decided. report: the latest, if there is one; failures: counted so far; active: runners that work."""

    state: State
    reason: Reason
    message: str
    report: JobReport | None = None
    failures: int | None = None
    active: int = 0
    wake_at: float | None = None


def ended(found: ModelJobStatus) -> bool:
    """Whether the stored status says that the job is over, for good or ill."""
    return any(each.type in ("Complete", "Failed") and each.status == "True" for each in found.conditions or ())


def failures(found: ModelJobStatus, task: ObservedTask | None) -> int:
    """Failures over all servers: those before the task that is seen now, and its own. Never fewer than were told."""
    return max(found.failed or 0, _before(found, task) + (task.failures if task else 0))


def outcome(view: JobView, verdict: Verdict, now: float) -> Outcome:
    """Status and events."""
    job = view.job
    body = _body(job, view, verdict, now)
    found = _conditions(view, verdict, body)
    generation = job.metadata.generation
    stamped = status.conditions(found, job.status.conditions, generation, now)
    return Outcome(status=status.status(body, stamped, generation), events=status.events(found, job.status.conditions))


def kept(job: ModelJob) -> dict[str, Any]:
    """The stored status of a job that is over, word for word."""
    generation = job.metadata.generation
    stored = job.status.conditions or ()
    found = [{**each.model_dump(by_alias=True, mode="json"), "observedGeneration": generation} for each in stored]
    return status.status(_stored(job), found, generation)


def reason(word: str) -> Reason:
    """Reports are not trusted: an unknown reason becomes a known one."""
    return Reason(word) if word in Reason.__members__.values() else Reason.CRASHED


def _conditions(view: JobView, verdict: Verdict, body: Mapping[str, Any]) -> tuple[Condition, ...]:
    complete, failed = verdict.state is State.COMPLETE, verdict.state is State.FAILED
    suspended = verdict.state is State.SUSPENDED
    why = verdict.reason
    message = _sentence(verdict, body)
    spec = view.job.spec
    resources = view.revision.task.resources if view.revision else compute.resources(spec.resources)
    return (
        Condition(type="Complete", status=_status(complete), reason=why, message=message),
        Condition(type="Failed", status=_status(failed), reason=why, message=message if failed else ""),
        Condition(
            type="Suspended",
            status=_status(suspended),
            reason=Reason.SUSPENDED if suspended else Reason.NOT_SUSPENDED,
            message=message if suspended else "",
        ),
        *enforced(resources, view.capabilities, pods.without_effect(spec, view.capabilities)),
    )


def _status(fact: bool) -> Status:
    return Status.TRUE if fact else Status.FALSE


def _sentence(verdict: Verdict, body: Mapping[str, Any]) -> str:
    if verdict.state is State.COMPLETE:
        return _done(verdict, body)
    if verdict.reason is not Reason.RUNNING:
        return verdict.message or f"nothing is known but the reason, {verdict.reason}"
    told = _progress(verdict.report, body)
    trouble = f"; the last failure: {verdict.message}" if verdict.message else ""
    return told + trouble


def _done(verdict: Verdict, body: Mapping[str, Any]) -> str:
    if verdict.reason is Reason.ALREADY_DONE:
        return "an earlier job has committed the results of this work; nothing was done again"
    if body.get("shards") is None:
        made = f"Model {body['outputModel']}" if body.get("outputModel") else "its output is committed"
        return f"done; {made}" if body.get("output") else "done"
    errors = body.get("errorRows") or 0
    return f"{body.get('rows') or 0:,} rows are committed" + (f", {errors:,} could not be scored" if errors else "")


def _progress(report: JobReport | None, body: Mapping[str, Any]) -> str:
    parts = []
    shards = body.get("shards")
    if shards:
        total = body.get("totalRows")
        parts.append(f"{shards['committed']} of {shards['planned']} shards")
        parts.append(f"{body.get('rows') or 0:,}" + (f" of {total:,} rows" if total else " rows"))
    elif body.get("progressPercentage") is not None:
        parts.append(f"{body['progressPercentage']}%")
    if body.get("errorRows"):
        parts.append(f"{body['errorRows']:,} errors")
    if body.get("rowsPerSecond"):
        parts.append(f"{body['rowsPerSecond']:,} rows/s")
    if body.get("estimatedRemainingSeconds") is not None:
        parts.append(f"about {durations.text(float(body['estimatedRemainingSeconds']))} left")
    return ", ".join(parts) or (report.note if report else "") or "running"


def _body(job: ModelJob, view: JobView, verdict: Verdict, now: float) -> dict[str, Any]:
    """The stored status brought up to date: what is not known now stays as it was last known."""
    body = _stored(job)
    runs = verdict.state in (State.RUNNING, State.COMPLETE)
    if runs:
        body.setdefault("startTime", timestamp(now))
    body["active"] = verdict.active
    if verdict.state is State.SUSPENDED:
        body.pop("startTime", None)  # as of a Job of Kubernetes: the deadline counts from being resumed
    if verdict.failures is not None:
        body["failed"] = verdict.failures
        _count(body, view)
    if view.revision is not None and view.revision.inputs.get("model"):
        body["digest"] = view.revision.inputs["model"]["digest"]
    if verdict.report is not None:
        body |= _reported(verdict.report, body)
    if verdict.state in (State.COMPLETE, State.FAILED):
        body["completionTime"] = timestamp(now)
    if verdict.state is not State.RUNNING or not verdict.active:
        for name in ("rowsPerSecond", "estimatedRemainingSeconds"):
            body.pop(name, None)
    if verdict.state is State.COMPLETE:
        body["progressPercentage"] = 100
        if job.spec.run and job.spec.run.output_model:
            body["outputModel"] = job.spec.run.output_model.name
    return body


def _count(body: dict[str, Any], view: JobView) -> None:
    revision = view.revision
    task = next((each for each in view.observed.tasks if revision and each.name == revision.task.name), None)
    if task is not None:
        body["failures"] = {"since": micro_timestamp(task.started_at), "before": _before(view.job.status, task)}


def _before(found: ModelJobStatus, task: ObservedTask | None) -> int:
    counted = found.failures
    if task is not None and counted is not None and counted.since == micro_timestamp(task.started_at):
        return counted.before
    return found.failed or 0


def _reported(report: JobReport, before: Mapping[str, Any]) -> dict[str, Any]:
    """A runner that has just been started knows less than one before it: progress does not go back."""
    shards = before.get("shards") or {"committed": 0}
    if (report.run, report.committed) < (before.get("run") or 0, shards["committed"]):
        return {}
    known: dict[str, Any] = {
        "run": report.run or None,
        "output": report.output or None,
        "deadLetters": report.errors or None,
        "digest": report.digest or None,
        "metrics": [{"name": each.name, "value": f"{each.value:.6g}"} for each in report.metrics] or None,
    }
    if report.shards:
        known |= {
            "shards": {"planned": report.shards, "committed": report.committed},
            "rows": report.rows,
            "errorRows": report.error_rows,
            "totalRows": report.total_rows or None,
        }
    percent = _percent(report)
    pace = {
        "progressPercentage": percent,
        "rowsPerSecond": round(report.rows_per_second) or None,
        "estimatedRemainingSeconds": None if report.eta_seconds is None else round(report.eta_seconds),
    }
    return {**{name: value for name, value in known.items() if value is not None}, **pace}


def _percent(report: JobReport) -> int | None:
    if report.percent is not None:
        return min(max(report.percent, 0), 100)
    if report.total_rows:
        return min(100, 100 * (report.rows + report.error_rows) // report.total_rows)
    return 100 * report.committed // report.shards if report.shards else None


def _stored(job: ModelJob) -> dict[str, Any]:
    return job.status.model_dump(
        by_alias=True, exclude_none=True, mode="json", exclude={"conditions", "observed_generation"}
    )
