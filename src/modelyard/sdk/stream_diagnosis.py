"""How a stream is, or why it does not follow: one answer from its status, its model and its events. Pure."""

from modelyard.base.conditions import Reason
from modelyard.sdk.case import Case, Diagnosis, ago, repeats, state, warnings
from modelyard.sdk.merge import last_applied
from modelyard.sdk.next_steps import stream_steps
from modelyard.sdk.objects import Object, condition
from modelyard.sdk.progress import count

_ASIDE = ("Enforced", "ModelReady")
"""Conditions that may be False although it follows."""


def diagnose(case: Case, now: float) -> Diagnosis:
    """The answer about a ModelStream that has been looked at. now: seconds since 1970."""
    subject = f"ModelStream {case.body['metadata']['name']}"
    if condition(case.body, "Suspended").get("status") == "True":
        return _paused(case, subject, now)
    ready = condition(case.body)
    if ready.get("status") == "True":
        return _following(case, subject, ready)
    return _waiting(case, subject, ready, now)


def going(case: Case, subject: str) -> Diagnosis:
    """The answer about one that is being deleted."""
    cleaned = condition(case.body, "Cleaned")
    if not cleaned:
        return Diagnosis(
            healthy=False,
            headline=f"{subject} is being deleted",
            facts=("its runners finish what they are committing",),
        )
    if cleaned.get("reason") == Reason.CLEANING:
        return Diagnosis(healthy=False, headline=f"{subject} is being deleted", details=str(cleaned.get("message")))
    return Diagnosis(
        healthy=False,
        headline=f"{subject} is being deleted, and what it left at its broker cannot be removed: "
        f"{cleaned.get('reason')}",
        details=str(cleaned.get("message") or ""),
        next_steps=("it is tried again for about two minutes; then the object goes, and what is left stays there",),
    )


def _paused(case: Case, subject: str, now: float) -> Diagnosis:
    suspended = condition(case.body, "Suspended")
    name, since = case.body["metadata"]["name"], ago(suspended.get("lastTransitionTime"), now)
    zero = suspended.get("reason") == Reason.SCALED_TO_ZERO
    found = [f"set spec.replicas to 1 or more to let {name} go on" if zero else f"modelyard resume {name}"]
    if not zero and (last_applied(case.body).get("spec") or {}).get("suspend"):
        found.append("and take suspend: true out of the manifest, or applying it suspends the stream again")
    return Diagnosis(
        healthy=True,
        headline=f"{subject} is {'scaled to zero' if zero else 'suspended'}" + (f" (for {since})" if since else ""),
        details=str(suspended.get("message") or ""),
        facts=_sums(case),
        next_steps=tuple(found),
    )


def _following(case: Case, subject: str, ready: Object) -> Diagnosis:
    conditions = (case.body.get("status") or {}).get("conditions") or ()
    aside = [each for each in conditions if each.get("type") in _ASIDE and each.get("status") == "False"]
    expired = condition(case.body, "RecordsExpired")
    lost = [str(expired.get("message"))] if expired.get("status") == "True" else []
    told = [f"{each.get('type')}: {state(each)}" for each in aside]
    return Diagnosis(
        healthy=True,
        headline=f"{subject} is Ready and following{', but:' if told or lost else ''}",
        details="\n".join([*lost, *told]),
        facts=(str(ready.get("message", "")), *_sums(case), *_standing_by(case)),
        next_steps=stream_steps(case, expired if lost else aside[0]) if lost or aside else (),
    )


def _waiting(case: Case, subject: str, ready: Object, now: float) -> Diagnosis:
    """It cannot start yet, or something keeps it."""
    own: Object = condition(case.model) if case.model else {}
    model_fails = (
        bool(own) and own.get("status") != "True" and ready.get("reason") in (Reason.MODEL_NOT_READY, own.get("reason"))
    )
    cause = own if model_fails else ready
    details, inner = str(ready.get("message") or ""), str(cause.get("message") or "")
    if not repeats(inner, details):
        details = f"{details}\n{inner}".lstrip("\n")
    since = ago(ready.get("lastTransitionTime"), now)
    return Diagnosis(
        healthy=False,
        headline=f"{subject} is not Ready: {cause.get('reason')}" + (f" (for {since})" if since else ""),
        details=details,
        facts=(*_scored_by(case, details), *_sums(case)),
        next_steps=stream_steps(case, cause),
        events=warnings(case, details, now),
    )


def _scored_by(case: Case, details: str) -> tuple[str, ...]:
    """What goes on meanwhile."""
    status = case.body.get("status") or {}
    partitions, count_of = status.get("partitions") or (), (case.body.get("spec") or {}).get("partitions") or 1
    held = [each for each in partitions if each.get("runner")]
    found = [f"{len(held)} of {count(count_of, 'partition')} {'has' if len(held) == 1 else 'have'} a runner"]
    latest = status.get("latestReadyRevision")
    if latest and latest != status.get("latestCreatedRevision") and latest not in details:
        found.append(f"{latest} goes on scoring")
    return tuple(found) if held else ("nothing is scored meanwhile; what arrives waits at the source",)


def _standing_by(case: Case) -> tuple[str, ...]:
    status, spec = case.body.get("status") or {}, case.body.get("spec") or {}
    spare = (status.get("readyReplicas") or 0) - (spec.get("partitions") or 1)
    return (f"{count(spare, 'runner')} {'stands' if spare == 1 else 'stand'} by",) if spare > 0 else ()


def _sums(case: Case) -> tuple[str, ...]:
    status = case.body.get("status") or {}
    if not status.get("records"):
        return ()
    dead = f", {status['deadLetters']:,} of them dead letters" if status.get("deadLetters") else ""
    return (f"{count(status['records'], 'record')} so far{dead}",)
