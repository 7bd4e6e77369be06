"""How a job is, or why it does not go on: one answer from its status, its model and its events. Pure."""

from modelyard.base.conditions import Reason
from modelyard.sdk import progress
from modelyard.sdk.case import Case, Diagnosis, ago, repeats, warnings
from modelyard.sdk.merge import last_applied
from modelyard.sdk.next_steps import job_steps, steps
from modelyard.sdk.objects import Object, condition
from modelyard.sdk.progress import Progress, State

_DEFAULT_BACKOFF_LIMIT = 6


def diagnose(case: Case, now: float) -> Diagnosis:
    """The answer about a ModelJob that has been looked at. now: seconds since 1970."""
    found = progress.of(case.body)
    subject = f"ModelJob {case.body['metadata']['name']}"
    if found.state is State.COMPLETE:
        return _complete(case, subject, found)
    if found.state is State.FAILED:
        return _failed(case, subject, found, now)
    if found.state is State.SUSPENDED:
        return _suspended(case, subject, now)
    if found.state is State.RUNNING:
        return _running(case, subject, found, now)
    return _waiting(case, subject, found, now)


def _complete(case: Case, subject: str, found: Progress) -> Diagnosis:
    return Diagnosis(
        healthy=True,
        headline=f"{subject} is done{': ' if progress.rows(found) or _already(found) else ''}"
        f"{progress.done(found).removeprefix('done')}",
        facts=(*_left(found), *_limits(case)),
    )


def _already(found: Progress) -> bool:
    return found.reason == Reason.ALREADY_DONE


def _failed(case: Case, subject: str, found: Progress, now: float) -> Diagnosis:
    failed = condition(case.body, "Failed")
    since = ago(failed.get("lastTransitionTime"), now)
    details = str(failed.get("message") or "")
    seconds = found.seconds(now)
    took = f"it ended after {progress.span(seconds)}" if seconds is not None else ""
    return Diagnosis(
        healthy=False,
        headline=f"{subject} has failed: {failed.get('reason')}" + (f" ({since} ago)" if since else ""),
        details=details,
        facts=tuple(filter(None, (*_kept(found), _failures(case, found, details), took))),
        next_steps=job_steps(case, failed, failed=True),
        events=warnings(case, details, now),
    )


def _suspended(case: Case, subject: str, now: float) -> Diagnosis:
    suspended = condition(case.body, "Suspended")
    since = ago(suspended.get("lastTransitionTime"), now)
    name = case.body["metadata"]["name"]
    found = [f"modelyard resume {name}"]
    if (last_applied(case.body).get("spec") or {}).get("suspend"):
        found.append("and take suspend: true out of the manifest, or applying it suspends the job again")
    return Diagnosis(
        healthy=True,
        headline=f"{subject} is suspended" + (f" (for {since})" if since else ""),
        details=str(suspended.get("message") or ""),
        facts=_kept(progress.of(case.body)),
        next_steps=tuple(found),
    )


def _running(case: Case, subject: str, found: Progress, now: float) -> Diagnosis:
    complete = condition(case.body)
    message = str(complete.get("message") or "")
    headline = progress.told(found).replace("%  ", "%, ")
    trouble = message.partition("; the last failure: ")[2]
    seconds = found.seconds(now)
    deadline = (case.body.get("spec") or {}).get("activeDeadlineSeconds")
    time = f"it has run for {progress.span(seconds)}" if seconds is not None else ""
    time += f" of {progress.span(deadline)} that activeDeadlineSeconds allows" if time and deadline else ""
    shards = f"{found.shards[0]:,} of {progress.count(found.shards[1], 'shard')} are committed" if found.shards else ""
    runners = f"{progress.count(found.active, 'runner')} {'works' if found.active == 1 else 'work'}"
    return Diagnosis(
        healthy=True,
        headline=f"{subject} is running: {headline}" if headline != "running" else f"{subject} is running",
        details=f"the last failure: {trouble}" if trouble else "",
        facts=tuple(filter(None, (shards, runners, _failures(case, found, ""), time, *_left(found), *_limits(case)))),
        next_steps=(f"what it writes: modelyard logs {case.body['metadata']['name']} -f",),
        events=warnings(case, message, now),
    )


def _waiting(case: Case, subject: str, found: Progress, now: float) -> Diagnosis:
    """It cannot start yet, or is tried again in a while."""
    complete = condition(case.body)
    own: Object = condition(case.model) if case.model else {}
    model_fails = (
        bool(own)
        and own.get("status") != "True"
        and found.reason
        in (
            Reason.MODEL_NOT_READY,
            own.get("reason"),
        )
    )
    cause = own if model_fails else complete
    details = str(complete.get("message") or "")
    inner = str(cause.get("message") or "")
    if not repeats(inner, details):
        details = f"{details}\n{inner}".lstrip("\n")
    healthy = cause.get("reason") in (Reason.STARTING, Reason.PREPARING, Reason.MODEL_NOT_READY)
    if found.state is State.STARTING:
        headline = f"{subject} is starting"
    elif healthy:
        headline = f"{subject} waits for its model: {cause.get('reason')}"
    else:
        headline = f"{subject} does not run: {cause.get('reason')}"
    return Diagnosis(
        healthy=healthy,
        headline=headline,
        details=details,
        facts=tuple(filter(None, (*_kept(found), _failures(case, found, details)))),
        next_steps=_model_steps(case, own) if model_fails else job_steps(case, complete, failed=False),
        events=warnings(case, details, now),
    )


def _model_steps(case: Case, own: Object) -> tuple[str, ...]:
    """What to do about the model; then the job goes on."""
    assert case.model is not None
    found = steps(Case(body=case.model, cluster=case.cluster), own)
    return (*found, "the job then starts by itself") if found else ()


def _kept(found: Progress) -> tuple[str, ...]:
    """What of an unfinished job stays as it is."""
    there = progress.committed(found)
    if not there:
        return ()
    place = f" at {found.output}" if found.output else ""
    return (f"{there} are committed{place} and stay", *_dead_letters(found))


def _left(found: Progress) -> tuple[str, ...]:
    facts = [f"results at {found.output}"] if found.output else []
    facts += _dead_letters(found) if found.dead_letters else []
    if found.output_model:
        facts.append(f"it made Model {found.output_model}")
    if found.metrics and found.state is State.COMPLETE:
        facts.append(progress.metrics(found))
    return tuple(facts)


def _dead_letters(found: Progress) -> list[str]:
    if not found.error_rows:
        return []
    place = f": {found.dead_letters}" if found.dead_letters else ""
    return [f"{progress.count(found.error_rows, 'row')} could not be scored{place}"]


def _failures(case: Case, found: Progress, details: str) -> str:
    if not found.failed or "backoffLimit" in details:
        return ""
    limit = (case.body.get("spec") or {}).get("backoffLimit", _DEFAULT_BACKOFF_LIMIT)
    return f"{progress.count(found.failed, 'failure')} so far; backoffLimit allows {limit}"


def _limits(case: Case) -> tuple[str, ...]:
    enforced = condition(case.body, "Enforced")
    return (str(enforced.get("message")),) if enforced.get("status") == "False" else ()
