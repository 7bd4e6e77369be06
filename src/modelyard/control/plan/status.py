"""Conditions -> `status.conditions`, and what changed -> events."""

from collections.abc import Iterable
from typing import Any

import msgspec

from modelyard.api import fields
from modelyard.base.clock import timestamp
from modelyard.base.conditions import Condition, Reason, StampedCondition, Status, stamp
from modelyard.control.plan.views import Event

_TOLD = frozenset({"Ready", "Complete", "Enforced", "RecordsExpired", "Cleaned", "Open"})
"""Conditions that make events; the others follow from these or are steps on the way."""
_UNDER_WAY = frozenset(
    {
        Reason.PREPARING,
        Reason.PROGRESSING,
        Reason.STARTING,
        Reason.WAITING_FOR_GATEWAY,
        Reason.MODEL_NOT_READY,
        Reason.RUNNING,
        Reason.SUSPENDED,
        Reason.SCALED_TO_ZERO,
        Reason.PARTITIONS_WAITING,
        Reason.CLEANING,
    }
)
_BAD = frozenset({"RecordsExpired", "Open"})
"""Conditions that are bad news when they are True."""


def conditions(
    found: tuple[Condition, ...], previous: fields.Conditions | None, generation: int, now: float
) -> list[dict[str, Any]]:
    """`status.conditions` as JSON: stamped, lastTransitionTime kept where the status did not change."""
    stamped = stamp(found, _stored(previous), generation, timestamp(now))
    return [msgspec.to_builtins(condition) for condition in stamped]


def events(found: tuple[Condition, ...], previous: fields.Conditions | None) -> tuple[Event, ...]:
    """One event for each condition whose status or reason changed to something definite."""
    before = {each.type: (str(each.status), each.reason) for each in previous or ()}
    return tuple(
        Event(
            type="Normal" if _is_well(condition) else "Warning",
            reason=condition.reason,
            message=condition.message or f"{condition.type} is {condition.status}",
        )
        for condition in found
        if condition.type in _TOLD
        and condition.status is not Status.UNKNOWN
        and before.get(condition.type) != (str(condition.status), str(condition.reason))
    )


def _is_well(condition: Condition) -> bool:
    return condition.reason in _UNDER_WAY or (condition.status is Status.TRUE and condition.type not in _BAD)


def status(body: dict[str, Any], found: Iterable[dict[str, Any]], generation: int) -> dict[str, Any]:
    """A whole status: fields without a value are left out, as Kubernetes does."""
    kept = {name: value for name, value in body.items() if value is not None}
    return {"observedGeneration": generation, **kept, "conditions": list(found)}


def _stored(previous: fields.Conditions | None) -> tuple[StampedCondition, ...]:
    return tuple(
        StampedCondition(
            type=condition.type,
            status=Status(condition.status),
            reason=condition.reason,
            message=condition.message,
            observed_generation=condition.observed_generation or 0,
            last_transition_time=condition.last_transition_time,
        )
        for condition in previous or ()
    )
