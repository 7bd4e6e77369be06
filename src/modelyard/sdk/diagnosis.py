"""Why an object is not Ready: its conditions, those of what it refers to, and its events, as one answer. Pure."""

from modelyard.base.conditions import Reason
from modelyard.sdk import job_diagnosis, stream_diagnosis, traffic
from modelyard.sdk.case import Case, Diagnosis, ago, repeats, state, warnings
from modelyard.sdk.next_steps import steps
from modelyard.sdk.objects import Object, condition

__all__ = ["Case", "Diagnosis", "diagnose"]


_MATTERS = frozenset({"ModelReady", "Enforced", "RoutesReady", "TrafficReady", "Available"})
_IF_IT_LASTS = {
    False: "if this lasts longer than a few seconds, see what 'modelyard up' printed",
    True: "if this lasts longer than a few seconds, see how the operator is: kubectl get pods -n modelyard-system",
}
"""By whether it is on a cluster."""
_APART = {"ModelJob": job_diagnosis.diagnose, "ModelStream": stream_diagnosis.diagnose}
"""Kinds that are answered about in their own way."""


def diagnose(case: Case, now: float) -> Diagnosis:
    """The answer. now: seconds since 1970."""
    kind = case.body["kind"]
    subject = f"{kind} {case.body['metadata']['name']}"
    ready = condition(case.body)
    found = _in_between(case, subject, ready)
    if found is not None:
        return found
    if kind in _APART:
        return _APART[kind](case, now)
    if ready.get("status") == "True":
        return _healthy(case, subject, ready)
    return _unhealthy(case, subject, ready, now)


def _in_between(case: Case, subject: str, ready: Object) -> Diagnosis | None:
    """Of one that goes, that is new, or that was changed just now."""
    body = case.body
    if body["metadata"].get("deletionTimestamp"):
        if body["kind"] == "ModelStream":
            return stream_diagnosis.going(case, subject)
        return Diagnosis(healthy=False, headline=f"{subject} is being deleted")
    if not ready:
        return Diagnosis(
            healthy=False,
            headline=f"{subject} has not been looked at yet",
            next_steps=(_IF_IT_LASTS[case.cluster],),
        )
    if _outdated(body, ready):
        return Diagnosis(
            healthy=False,
            headline=f"{subject} was changed a moment ago and is being looked at",
            facts=(f"before the change it was {state(ready)}",) if ready.get("type") == "Ready" else (),
        )
    return None


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
    troubles = [each for each in _others(case.body) if _is_trouble(each)]
    status = case.body.get("status") or {}
    facts = [f"predict at {status['url']}/infer"] if status.get("url") else []
    return Diagnosis(
        healthy=True,
        headline=f"{subject} {verb}{', but:' if troubles else ''}",
        details="\n".join(f"{each.get('type')}: {_why(each)}" for each in troubles),
        facts=(str(ready.get("message", "")), *facts),
        next_steps=steps(case, troubles[0]) if troubles else (),
    )


def _unhealthy(case: Case, subject: str, ready: Object, now: float) -> Diagnosis:
    cause = ready
    if ready.get("reason") == Reason.MODEL_NOT_READY and case.model is not None:
        cause = condition(case.model) or ready
    since = ago(ready.get("lastTransitionTime"), now)
    details = str(ready.get("message") or "")
    inner = str(cause.get("message") or "")
    if not repeats(inner, details):
        details = f"{details}\n{inner}".lstrip("\n")
    return Diagnosis(
        healthy=False,
        headline=f"{subject} is not Ready: {cause.get('reason')}" + (f" (for {since})" if since else ""),
        details=_plain(case, details),
        facts=_facts(case, details),
        next_steps=steps(case, cause),
        events=warnings(case, details, now),
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
            serving = ", ".join(traffic.answering(status))
            facts.append(f"requests are answered meanwhile{f' by {serving}' if serving else ''}")
        else:
            facts.append("requests get 503 meanwhile")
        if case.revisions and (latest := case.revisions[-1]["metadata"]["name"]) not in details:
            ready, wanted = status.get("readyReplicas", 0), status.get("desiredReplicas", 0)
            facts.append(f"newest revision: {latest}; {ready} replicas ready of {wanted} asked for")
        if case.model is not None:
            own = condition(case.model)
            if own.get("status") != "True" and not repeats(str(own.get("message") or ""), details):
                facts.append(f"Model {case.model['metadata']['name']}: {state(own)}")
    return tuple(facts)


def _others(body: Object) -> list[Object]:
    return [each for each in (body.get("status") or {}).get("conditions") or () if each.get("type") != "Ready"]


def _is_trouble(found: Object) -> bool:
    """Progressing is False when all is done, and Open is a warning when it is True."""
    if found.get("type") == "Open":
        return found.get("status") == "True"
    return found.get("status") == "False" and found.get("type") in _MATTERS


def _why(trouble: Object) -> str:
    """Where being True is the trouble, `ready` would mislead."""
    return f"{trouble.get('reason')}: {trouble.get('message')}" if trouble.get("status") == "True" else state(trouble)


def _outdated(body: Object, ready: Object) -> bool:
    return int(ready.get("observedGeneration") or 0) < int(body["metadata"].get("generation") or 0)
