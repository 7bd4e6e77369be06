"""What is known about an object, what is answered about it, and the words that all answers share. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.base import durations
from modelyard.base.clock import seconds_since_epoch
from modelyard.base.conditions import Reason
from modelyard.sdk.load import Loads
from modelyard.sdk.objects import Object

_MOST_EVENTS = 3
_SHORTEST_REPEAT = 12
"""Shorter remains of a message may be in another one by chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is known. body: the object in question; model: the Model behind a service or job; events: of both, oldest
    first; loads: of a service's revisions, where somebody asked for them. cluster: whether pods run it."""

    body: Object
    model: Object | None = None
    revisions: Sequence[Object] = ()
    events: Sequence[Object] = ()
    loads: Loads = field(default_factory=Loads)
    cluster: bool = False


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


def warnings(case: Case, details: str, now: float) -> tuple[str, ...]:
    """The latest warnings that add something to what is said already, one line each."""
    news = [
        each
        for each in case.events
        if each.get("type") == "Warning"
        and each.get("reason") != Reason.NOT_ENFORCED
        and not repeats(str(each.get("message") or ""), details)
    ]
    return tuple(_event(each, now) for each in news[-_MOST_EVENTS:])


def repeats(message: str, details: str) -> bool:
    """Whether a message says what the details say, aside from where it happened: `svc-00001: 0 of 1 ready: ...`."""
    rest = message.partition("\n")[0].strip()
    while len(rest) >= _SHORTEST_REPEAT:
        if rest in details:
            return True
        rest = rest.partition(": ")[2]
    return not message


def state(found: Mapping[str, Any]) -> str:
    """A condition in words."""
    if not found:
        return "not looked at yet"
    word = {"True": "ready", "False": "not ready"}.get(str(found.get("status")), "unknown")
    said = str(found.get("message") or "").split("\n")[0]
    return f"{word}, {found.get('reason')}" + (f": {said}" if said else "")


def _event(event: Object, now: float) -> str:
    count = int(event.get("count") or 1)
    times = f" ({count} times)" if count > 1 else ""
    age = ago(event.get("lastTimestamp"), now) or "?"
    message = str(event.get("message", "")).split("\n")[0]
    return f"{age:>5}  {event.get('type')} {event.get('reason')}{times}: {message}"


def ago(stamp: object, now: float) -> str:
    """The age of a time stamp; "" if there is none."""
    try:
        return durations.age(now - seconds_since_epoch(str(stamp)))
    except ValueError:
        return ""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
