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
from modelyard.control.plan import job_status, local_path, pods, reference
from modelyard.control.plan.job_report import plausible
from modelyard.control.plan.job_status import State, Verdict
from modelyard.control.plan.job_work import KIND, Scorer, key, record
from modelyard.control.plan.reference import Referrer
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.views import Event, JobView, MadeModel, Outcome
from modelyard.wire.report import JobReport

__all__ = ["KIND", "desire", "key"]


def desire(view: JobView, now: float) -> Outcome:
    """What must run, and the status that follows from what is known."""
    if job_status.ended(view.job.status):
        return _afterwards(view.job, now)
    seen = _seen(view)
    known = _known(view, seen)
    refusal = _never(view)
    if refusal is not None:
        return _end(view, _failed(known, refusal.reason, refusal.message), seen, now)
    if seen is not None and _is_over(seen):
        return _end(view, _over(known, seen), seen, now)
    if view.job.spec.suspend:
        message = "suspend is true; what is committed stays, and the rest is done when it is false again"
        suspended = replace(known, state=State.SUSPENDED, reason=Reason.SUSPENDED, message=message, active=0)
        return _outcome(view, suspended, now)
    if view.revision is None:
        return _begin(view, now)
    return _follow(view, view.revision.task, seen, known, now)


def _seen(view: JobView) -> ObservedTask | None:
    """The recorded task, where the driver has it."""
    name = view.revision.task.name if view.revision else ""
    return next((each for each in view.observed.tasks if each.name == name), None)


def _known(view: JobView, seen: ObservedTask | None) -> Verdict:
    """What does not depend on how it goes on."""
    return Verdict(
        state=State.RUNNING,
        reason=Reason.STARTING,
        message="runners are being started",
        report=_latest(seen) if seen else None,
        failures=job_status.failures(view.job.status, seen) if view.revision else None,
        active=_active(seen) if seen else 0,
    )


def _is_over(task: ObservedTask) -> bool:
    """Not one that ended without a word: its driver has ended it, for example together with the server."""
    return task.finished_at is not None and (task.report is not None or bool(task.message))


def _never(view: JobView) -> Refusal | None:
    """What no time heals, since a job's work cannot be changed."""
    wrong = pods.refusal(view.job.spec, view.capabilities) or local_path.of_job(view.job, view.capabilities)
    run = view.job.spec.run
    if wrong is not None or run is None:
        return wrong
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
        return _outcome(view, starting, now, Desired(records=(record(job, None, view.capabilities),)))
    owner, account, template = key(job), job.spec.service_account_name, job.spec.pod_template
    referrer = Referrer(
        namespace=owner.namespace,
        name=owner.name,
        path="spec.score.model",
        runtime=score.runtime,
        account=account,
        template=template,
    )
    found = reference.resolve(referrer, score.model, view.models, view.runtimes)
    owned = reference.owned_model(owner.name, score.model, account, template)
    absent = owned is not None and all(each.metadata.name != owned.name for each in view.models)
    models = (owned,) if owned and absent else ()
    if isinstance(found, Refusal):
        verdict = Verdict(state=State.WAITING, reason=found.reason, message=found.message)
        return replace(_outcome(view, verdict, now), models=models)
    devices = pods.runtime_refusal(found[1], job.spec, view.capabilities)
    if devices is not None:
        return _outcome(view, Verdict(state=State.WAITING, reason=devices.reason, message=devices.message), now)
    revision = record(job, Scorer(model=found[0], selection=found[1]), view.capabilities)
    return _outcome(view, starting, now, Desired(records=(revision,)))


def _follow(view: JobView, recorded: Task, seen: ObservedTask | None, known: Verdict, now: float) -> Outcome:
    """The recorded task, as long as it may run."""
    spec = view.job.spec
    failures, limit = known.failures or 0, spec.backoff_limit
    if failures > limit:
        message = f"{failures} runners failed, backoffLimit is {limit}{_last_words(seen)}"
        return _end(view, _failed(known, Reason.BACKOFF_LIMIT_EXCEEDED, message), seen, now)
    due = _deadline(view.job, now)
    if due is not None and now >= due:
        message = f"not done within {spec.active_deadline_seconds} s (activeDeadlineSeconds)"
        return _end(view, _failed(known, Reason.DEADLINE_EXCEEDED, message), seen, now)
    task = msgspec.structs.replace(recorded, parallelism=spec.parallelism) if spec.score else recorded
    again = seen is not None and seen.finished_at is not None  # forgotten first, then run again
    verdict = replace(_running(known, seen) if seen and not again else known, wake_at=due)
    return _outcome(view, verdict, now, Desired(tasks=() if again else (task,)))


def _end(view: JobView, verdict: Verdict, seen: ObservedTask | None, now: float) -> Outcome:
    """The task is left as it is until the stored status shows the result: a write that is lost then costs nothing, and
    what has failed is not run again.
    """
    outcome = _outcome(view, verdict, now, Desired(kept=(seen.name,) if seen else ()))
    made = _made(view.job, verdict.report) if verdict.state is State.COMPLETE else None
    if made is None:
        return outcome
    told = Event(type="Normal", reason=Reason.MODEL_CREATED, message=f"made Model {made.name} of the output")
    return replace(outcome, made=made, events=(told, *outcome.events))


def _failed(known: Verdict, reason: Reason, message: str) -> Verdict:
    return replace(known, state=State.FAILED, reason=reason, message=message, active=0)


def _over(known: Verdict, task: ObservedTask) -> Verdict:
    """What the end of all runners means."""
    report = task.report
    if report is not None and report.job is not None and report.job.done:
        reason = Reason.ALREADY_DONE if report.job.already else Reason.COMPLETED
        told = plausible(report.job)
        return replace(known, state=State.COMPLETE, reason=reason, message="", report=told, active=0)
    if report is not None and report.failure is not None:
        return _failed(known, job_status.reason(report.failure.reason), report.failure.message)
    return _failed(known, Reason.CRASHED, task.message or "the runners ended without a report")


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
    reports = [plausible(each.report.job) for each in task.members if each.report and each.report.job]
    return max(reports, key=lambda each: (each.run, each.committed, each.rows, each.percent or 0), default=None)


def _active(task: ObservedTask) -> int:
    return sum(each.state is MemberState.RUNNING for each in task.members)


def _last_words(task: ObservedTask | None) -> str:
    troubles = [each.trouble for each in task.members if each.trouble] if task else []
    latest = max(troubles, key=lambda each: each.since, default=None)
    return f"; the last: {latest.reason}: {latest.message}" if latest else ""


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
        return Outcome(status=job_status.kept(job))
    due = clock.seconds_since_epoch(completed) + ttl
    if now >= due:
        return Outcome(expired=True)
    return Outcome(status=job_status.kept(job), wake_at=due)


def _outcome(view: JobView, verdict: Verdict, now: float, desired: Desired | None = None) -> Outcome:
    return replace(job_status.outcome(view, verdict, now), desired=desired or Desired(), wake_at=verdict.wake_at)
