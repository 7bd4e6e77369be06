"""ModelJob: the task that must run, when it is over, and what is made of what it left.

A job runs once. It ends when its runners say that the results are committed, when a report says that trying again
changes nothing, or when it has failed too often or taken too long. Everything else is tried again by the driver.
"""

from dataclasses import replace

import msgspec

from modelyard.api.job import ModelJob
from modelyard.api.model import ModelSpec
from modelyard.base import clock
from modelyard.base.conditions import Reason
from modelyard.control.ir import names
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import MemberState, ObservedTask
from modelyard.control.ir.task import Task
from modelyard.control.plan import job_status, reference
from modelyard.control.plan.job_status import State, Verdict
from modelyard.control.plan.job_work import KIND, Scorer, key, record
from modelyard.control.plan.reference import Referrer
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.views import JobView, MadeModel, Outcome
from modelyard.wire.report import JobReport

__all__ = ["KIND", "desire", "key"]


def desire(view: JobView, now: float) -> Outcome:
    """What must run, and the status that follows from what is known."""
    if job_status.ended(view.job.status):
        return _afterwards(view.job, now)
    refusal = _never(view)
    if refusal is not None:
        return _outcome(view, Verdict(state=State.FAILED, reason=refusal.reason, message=refusal.message), now)
    if view.job.spec.suspend:
        message = "suspend is true; what is committed stays, and the rest is done when it is false again"
        return _outcome(view, Verdict(state=State.SUSPENDED, reason=Reason.SUSPENDED, message=message), now)
    if view.revision is None:
        return _begin(view, now)
    return _follow(view, view.revision.task, now)


def _never(view: JobView) -> Refusal | None:
    """What no time heals, since a job's work cannot be changed."""
    run = view.job.spec.run
    if run is None:
        return None
    chosen = run.environment.model_dump(exclude_none=True) if run.environment else {}
    for field in ("requirements", "lock"):
        if field in chosen:
            return Refusal(
                reason=Reason.UNSUPPORTED,
                message=f"spec.run.environment.{field} is not supported yet; install the packages into a virtual "
                "environment and name its interpreter in spec.run.environment.python",
            )
    if "image" in chosen and "image" not in view.capabilities.supports:
        return Refusal(
            reason=Reason.UNSUPPORTED,
            message="spec.run.environment.image cannot be used on one machine without Kubernetes; name an interpreter "
            "in spec.run.environment.python",
        )
    made = run.output_model
    model = next((each for each in view.models if made and each.metadata.name == made.name), None)
    if model is not None and model.metadata.annotations.get(names.ANNOTATION_JOB_UID) != view.job.metadata.uid:
        return Refusal(
            reason=Reason.OUTPUT_MODEL_EXISTS,
            message=f"spec.run.outputModel.name: Model {model.metadata.name} exists, and a job never replaces one; "
            "name another",
        )
    return None


def _begin(view: JobView, now: float) -> Outcome:
    """Record what will run as soon as the model is prepared."""
    job = view.job
    score = job.spec.score
    starting = Verdict(state=State.WAITING, reason=Reason.STARTING, message="the job is being recorded")
    if score is None:
        return _outcome(view, starting, now, Desired(records=(record(job, None),)))
    owner = key(job)
    referrer = Referrer(namespace=owner.namespace, name=owner.name, path="spec.score.model", runtime=score.runtime)
    found = reference.resolve(referrer, score.model, view.models, view.runtimes)
    owned = reference.owned_model(owner.name, score.model)
    absent = owned is not None and all(each.metadata.name != owned.name for each in view.models)
    models = (owned,) if owned and absent else ()
    if isinstance(found, Refusal):
        verdict = Verdict(state=State.WAITING, reason=found.reason, message=found.message)
        return replace(_outcome(view, verdict, now), models=models)
    revision = record(job, Scorer(model=found[0], selection=found[1]))
    return _outcome(view, starting, now, Desired(records=(revision,)))


def _follow(view: JobView, recorded: Task, now: float) -> Outcome:
    """The recorded task, until it is over."""
    spec = view.job.spec
    task = msgspec.structs.replace(recorded, parallelism=spec.parallelism) if spec.score else recorded
    observed = next((each for each in view.observed.tasks if each.name == task.name), None)
    verdict = _verdict(view.job, observed, now)
    # A task that is over stays until the stored status shows its result: a lost write then costs nothing.
    kept = verdict.state is not State.FAILED or (observed is not None and observed.finished_at is not None)
    outcome = _outcome(view, verdict, now, Desired(tasks=(task,) if kept else ()))
    return replace(outcome, made=_made(view.job, verdict.report) if verdict.state is State.COMPLETE else None)


def _verdict(job: ModelJob, task: ObservedTask | None, now: float) -> Verdict:
    """What the runners' reports and ends mean."""
    failures = job_status.failures(job.status, task)
    known = Verdict(state=State.RUNNING, reason=Reason.STARTING, message="runners are being started", failures=failures)
    if task is None:
        return replace(known, state=State.RUNNING, wake_at=_deadline(job, now))
    known = replace(known, report=_latest(task), active=_active(task))
    if task.finished_at is not None:
        return _over(known, task)
    limit = job.spec.backoff_limit
    if failures > limit:
        message = f"{failures} runners failed, backoffLimit is {limit}{_last_words(task, '; the last: ')}"
        return replace(known, state=State.FAILED, reason=Reason.BACKOFF_LIMIT_EXCEEDED, message=message)
    due = _deadline(job, now)
    if due is not None and now >= due:
        seconds = job.spec.active_deadline_seconds
        message = f"not done within {seconds} s (activeDeadlineSeconds)"
        return replace(known, state=State.FAILED, reason=Reason.DEADLINE_EXCEEDED, message=message)
    return replace(_running(known, task), wake_at=due)


def _over(known: Verdict, task: ObservedTask) -> Verdict:
    report = task.report
    if report is not None and report.job is not None and report.job.done:
        reason = Reason.ALREADY_DONE if report.job.already else Reason.COMPLETED
        return replace(known, state=State.COMPLETE, reason=reason, message="", report=report.job, active=0)
    if report is not None and report.failure is not None:
        told = report.failure
        return replace(known, state=State.FAILED, reason=job_status.reason(told.reason), message=told.message, active=0)
    message = task.message or "the runners ended without a report"
    return replace(known, state=State.FAILED, reason=Reason.CRASHED, message=message, active=0)


def _running(known: Verdict, task: ObservedTask) -> Verdict:
    """The reason is what keeps it from working, where nobody works."""
    troubles = [each.trouble for each in task.members if each.trouble]
    latest = max(troubles, key=lambda each: each.since, default=None)
    if not known.active and latest is not None:
        return replace(known, reason=job_status.reason(latest.reason), message=latest.message)
    if known.report is None:
        return known
    return replace(known, reason=Reason.RUNNING, message=latest.message.partition("\n")[0] if latest else "")


def _latest(task: ObservedTask) -> JobReport | None:
    """The report that knows most; each tells of the whole run."""
    reports = [each.report.job for each in task.members if each.report and each.report.job]
    return max(reports, key=lambda each: (each.run, each.committed, each.rows, each.percent or 0), default=None)


def _active(task: ObservedTask) -> int:
    return sum(each.state is MemberState.RUNNING for each in task.members)


def _last_words(task: ObservedTask, before: str) -> str:
    troubles = [each.trouble for each in task.members if each.trouble]
    latest = max(troubles, key=lambda each: each.since, default=None)
    return f"{before}{latest.reason}: {latest.message}" if latest else ""


def _deadline(job: ModelJob, now: float) -> float | None:
    if job.spec.active_deadline_seconds is None:
        return None
    started = job.status.start_time
    return (clock.seconds_since_epoch(started) if started else now) + job.spec.active_deadline_seconds


def _made(job: ModelJob, report: JobReport | None) -> MadeModel | None:
    """The Model of the output, once: a job that has ended makes none."""
    run = job.spec.run
    if run is None or run.output_model is None or run.output is None or report is None:
        return None
    made = run.output_model
    annotations = {names.ANNOTATION_JOB: job.metadata.name, names.ANNOTATION_JOB_UID: job.metadata.uid}
    if report.metrics:
        metrics = {each.name: each.value for each in report.metrics}
        annotations[names.ANNOTATION_METRICS] = names.canonical(metrics).decode()
    spec = ModelSpec(
        uri=f"{run.output.uri.rstrip('/')}/{made.path}",
        credentials=run.output.credentials,
        digest=report.digest or None,
        format=made.format or report.format or None,
        trust=made.trust,
    )
    return MadeModel(name=made.name, spec=spec, annotations=annotations)


def _afterwards(job: ModelJob, now: float) -> Outcome:
    """Nothing runs any more; the object goes when its time is over."""
    ttl, completed = job.spec.ttl_seconds_after_finished, job.status.completion_time
    if ttl is None or completed is None:
        return Outcome(status=job_status.kept(job, now))
    due = clock.seconds_since_epoch(completed) + ttl
    if now >= due:
        return Outcome(expired=True)
    return Outcome(status=job_status.kept(job, now), wake_at=due)


def _outcome(view: JobView, verdict: Verdict, now: float, desired: Desired | None = None) -> Outcome:
    return replace(job_status.outcome(view, verdict, now), desired=desired or Desired(), wake_at=verdict.wake_at)
