"""Why an object is not Ready: its conditions, those of what it refers to, and its events, as one answer. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.base import durations
from modelyard.base.clock import seconds_since_epoch
from modelyard.base.conditions import Reason
from modelyard.sdk.objects import Object, condition

_MOST_EVENTS = 3
_SHORTEST_REPEAT = 12
"""Shorter remains of a message may be in another one by chance."""
_SAVE = ("save a good model at {uri}, then: modelyard refresh {name}",)
_CORRECT_URI = "or correct the uri in the manifest, and apply it"
_OTHER_MODEL = "or declare a Model of another name for another uri"
_CORRECT = ("correct the manifest as said above, and apply it",)
_TRIED = ("modelyard logs {name}", "it is tried again by itself, with growing pauses")
_WAIT = ("wait a moment; what happens now: modelyard logs {name} -f",)
_APPLY = ("apply what is missing: the rest follows by itself",)
_NEXT: Mapping[str, tuple[str, ...]] = {
    Reason.ARTIFACT_NOT_FOUND: _SAVE,
    Reason.ARTIFACT_INVALID: _SAVE,
    Reason.ARTIFACT_UNREADABLE: _SAVE,
    Reason.ARTIFACT_CHANGED: _SAVE,
    Reason.DIGEST_MISMATCH: (
        "restore the pinned artifact at {uri}, then: modelyard refresh {name}",
        "or declare the new content as a new Model",
    ),
    Reason.TRUST_REQUIRED: _CORRECT,
    Reason.FORMAT_MISMATCH: _CORRECT,
    Reason.FORMAT_UNKNOWN: (
        "save a model of a known format at {uri}, then: modelyard refresh {name}",
        "or name its format in the manifest, and apply it",
    ),
    Reason.SIGNATURE_MISMATCH: _CORRECT,
    Reason.SAMPLE_MISSING: _CORRECT,
    Reason.RUNTIME_MISMATCH: _CORRECT,
    Reason.UNSUPPORTED: _CORRECT,
    Reason.INVALID: _CORRECT,
    Reason.ARTIFACT_TOO_LARGE: _SAVE,
    Reason.UNSCHEDULABLE: (
        "correct spec.resources in the manifest, and apply it",
        "or make room; what else runs here: modelyard get modelservices -A",
    ),
    Reason.DISK_FULL: ("make room on that disk: the rest follows by itself",),
    Reason.ENVIRONMENT_MISSING: ("install what is missing where 'modelyard up' runs, then: modelyard refresh {name}",),
    Reason.CRASHED: _TRIED,
    Reason.LOAD_FAILED: _TRIED,
    Reason.WARMUP_FAILED: _TRIED,
    Reason.STARTUP_TIMEOUT: _TRIED,
    Reason.PREPARING: _WAIT,
    Reason.STARTING: _WAIT,
    Reason.PROGRESSING: _WAIT,
    Reason.WAITING_FOR_GATEWAY: _WAIT,
    Reason.MODEL_NOT_FOUND: _APPLY,
    Reason.RUNTIME_NOT_FOUND: _APPLY,
    Reason.SECRET_NOT_FOUND: _APPLY,
}
"""The commands for each reason; what must be done in detail is in the messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is known. body: the object in question; model: the Model behind a service; events: of both, oldest first."""

    body: Object
    model: Object | None = None
    revisions: Sequence[Object] = ()
    events: Sequence[Object] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """headline: the answer in one line. details: what failed, in its own words; may be many lines. facts: what else is
    known. next_steps: what to do. events: the latest
    warnings that say something else, one line each."""

    healthy: bool
    headline: str
    details: str = ""
    facts: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    events: tuple[str, ...] = ()

    def text(self) -> str:
        """For people."""
        parts = [self.headline]
        if self.details:
            parts.append(_indented(self.details))
        parts.extend(f"  {fact}" for fact in self.facts)
        if self.events:
            parts.append("Warnings:")
            parts.extend(f"  {event}" for event in self.events)
        if self.next_steps:
            parts.append("Next:")
            parts.extend(f"  {step}" for step in self.next_steps)
        return "\n".join(parts)


def diagnose(case: Case, now: float) -> Diagnosis:
    """The answer. now: seconds since 1970."""
    body = case.body
    name = body["metadata"]["name"]
    subject = f"{body['kind']} {name}"
    ready = condition(body)
    if body["metadata"].get("deletionTimestamp"):
        return Diagnosis(healthy=False, headline=f"{subject} is being deleted")
    if not ready:
        return Diagnosis(
            healthy=False,
            headline=f"{subject} has not been looked at yet",
            next_steps=("if this lasts longer than a few seconds, see what 'modelyard up' printed",),
        )
    if _outdated(body, ready):
        return Diagnosis(
            healthy=False,
            headline=f"{subject} was changed a moment ago and is being looked at",
            facts=(f"before the change it was {_state(ready)}",),
        )
    if ready.get("status") == "True":
        return _healthy(case, subject, ready)
    return _unhealthy(case, subject, ready, now)


def _healthy(case: Case, subject: str, ready: Object) -> Diagnosis:
    name = case.body["metadata"]["name"]
    verb = "is Ready and serving" if case.body["kind"] == "ModelService" else "is Ready"
    if ready.get("reason") == Reason.SCALED_TO_ZERO:
        step = f"set spec.replicas to 1 or more to serve {name}"
        return Diagnosis(
            healthy=True,
            headline=f"{subject} is scaled to zero",
            details=str(ready.get("message", "")),
            next_steps=(step,),
        )
    troubles = [each for each in _others(case.body) if each.get("status") == "False" and _matters(each)]
    status = case.body.get("status") or {}
    facts = [f"predict at {status['url']}/infer"] if status.get("url") else []
    return Diagnosis(
        healthy=True,
        headline=f"{subject} {verb}{', but:' if troubles else ''}",
        details="\n".join(f"{each.get('type')}: {_state(each)}" for each in troubles),
        facts=(str(ready.get("message", "")), *facts),
        next_steps=_steps(case, troubles[0]) if troubles else (),
    )


def _unhealthy(case: Case, subject: str, ready: Object, now: float) -> Diagnosis:
    cause = ready
    if ready.get("reason") == Reason.MODEL_NOT_READY and case.model is not None:
        cause = condition(case.model) or ready
    since = _ago(ready.get("lastTransitionTime"), now)
    details = str(ready.get("message") or "")
    inner = str(cause.get("message") or "")
    if not _told(inner, details):
        details = f"{details}\n{inner}".lstrip("\n")
    return Diagnosis(
        healthy=False,
        headline=f"{subject} is not Ready: {cause.get('reason')}" + (f" (for {since})" if since else ""),
        details=_plain(case, details),
        facts=_facts(case, details),
        next_steps=_steps(case, cause),
        events=tuple(_event(each, now) for each in _news(case, details)[-_MOST_EVENTS:]),
    )


def _plain(case: Case, details: str) -> str:
    """Nobody has chosen the name of the Model that belongs to a service, so it is not what the sentence begins with."""
    if case.model is None or not case.model["metadata"].get("ownerReferences"):
        return details
    return details.removeprefix(f"Model {case.model['metadata']['name']}: ")


def _facts(case: Case, details: str) -> tuple[str, ...]:
    facts = []
    if case.body["kind"] == "ModelService":
        status = case.body.get("status") or {}
        if condition(case.body, "Available").get("status") == "True":
            serving = ", ".join(str(each.get("revision")) for each in status.get("traffic") or ())
            facts.append(f"requests are answered meanwhile{f' by {serving}' if serving else ''}")
        else:
            facts.append("requests get 503 meanwhile")
        if case.revisions and (latest := case.revisions[-1]["metadata"]["name"]) not in details:
            ready, wanted = status.get("readyReplicas", 0), status.get("desiredReplicas", 0)
            facts.append(f"newest revision: {latest}; {ready} replicas ready of {wanted} asked for")
        if case.model is not None:
            own = condition(case.model)
            if own.get("status") != "True" and not _told(str(own.get("message") or ""), details):
                facts.append(f"Model {case.model['metadata']['name']}: {_state(own)}")
    return tuple(facts)


def _news(case: Case, details: str) -> list[Object]:
    """The warnings that add something to what is said already."""
    return [
        each
        for each in case.events
        if each.get("type") == "Warning"
        and each.get("reason") != Reason.NOT_ENFORCED
        and not _told(str(each.get("message") or ""), details)
    ]


def _told(message: str, details: str) -> bool:
    """Whether a message says what the details say, aside from where it happened: `svc-00001: 0 of 1 ready: ...`."""
    rest = message.partition("\n")[0].strip()
    while len(rest) >= _SHORTEST_REPEAT:
        if rest in details:
            return True
        rest = rest.partition(": ")[2]
    return not message


def _steps(case: Case, cause: Mapping[str, Any]) -> tuple[str, ...]:
    """What to do about a reason. Messages name the details; this names the command."""
    name = case.body["metadata"]["name"]
    uri = ((case.model or case.body).get("spec") or {}).get("uri") or "its place"
    steps = _NEXT.get(str(cause.get("reason")), ())
    if steps is _SAVE:  # the uri of a Model stays, that of a service's own one follows the manifest
        inline = bool((case.body.get("spec") or {}).get("model", {}).get("uri"))
        steps = (*steps, _CORRECT_URI if inline else _OTHER_MODEL)
    return tuple(step.format(name=name, uri=uri) for step in steps)


def _others(body: Object) -> list[Object]:
    return [each for each in (body.get("status") or {}).get("conditions") or () if each.get("type") != "Ready"]


def _matters(found: Object) -> bool:
    """Progressing is False when all is done."""
    return found.get("type") in ("ModelReady", "Enforced", "RoutesReady", "Available")


def _outdated(body: Object, ready: Object) -> bool:
    return int(ready.get("observedGeneration") or 0) < int(body["metadata"].get("generation") or 0)


def _state(found: Mapping[str, Any]) -> str:
    if not found:
        return "not looked at yet"
    word = {"True": "ready", "False": "not ready"}.get(str(found.get("status")), "unknown")
    said = str(found.get("message") or "").split("\n")[0]
    return f"{word}, {found.get('reason')}" + (f": {said}" if said else "")


def _event(event: Object, now: float) -> str:
    count = int(event.get("count") or 1)
    times = f" ({count} times)" if count > 1 else ""
    age = _ago(event.get("lastTimestamp"), now) or "?"
    message = str(event.get("message", "")).split("\n")[0]
    return f"{age:>5}  {event.get('type')} {event.get('reason')}{times}: {message}"


def _ago(stamp: object, now: float) -> str:
    try:
        return durations.age(now - seconds_since_epoch(str(stamp)))
    except ValueError:
        return ""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
