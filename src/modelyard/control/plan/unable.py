"""When nothing can be decided about an object: leave alone what runs, and say so."""

from typing import Any

from modelyard.base.clock import timestamp
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedRoute
from modelyard.control.ir.unit import DesiredUnit
from modelyard.control.plan.views import Outcome

Object = dict[str, Any]


def leave_alone(
    stored: Object, observed: Observed, route: ObservedRoute, *, reason: Reason, message: str, now: float
) -> Outcome:
    """Everything as it is, with `Ready=False` (of a job `Complete=False`) and the reason in the status.

    stored: the object as the API server holds it, which may be of any form below metadata. A job that has ended stays
    ended: nothing of it runs any more, and its status is its result.
    """
    if stored.get("kind") == "ModelJob" and _ended(stored):
        return Outcome()
    found = Condition(
        type="Complete" if stored.get("kind") == "ModelJob" else "Ready",
        status=Status.FALSE,
        reason=reason,
        message=message,
    )
    before = _status(stored)
    conditions = _conditions(stored)
    ready = next((each for each in conditions if each.get("type") == found.type), {})
    generation = int(stored["metadata"].get("generation", 1))
    since = ready.get("lastTransitionTime") if ready.get("status") == str(found.status) else None
    stamped = {
        "type": found.type,
        "status": str(found.status),
        "reason": str(found.reason),
        "message": found.message,
        "observedGeneration": generation,
        "lastTransitionTime": since or timestamp(now),
    }
    others = [each for each in conditions if each.get("type") != found.type]
    return Outcome(
        desired=Desired(
            units=tuple(
                DesiredUnit(unit=each.unit, replicas=each.replicas, begun=each.begun) for each in observed.units
            ),
            routes=(route.acknowledged,) if route.acknowledged else (),
            kept=tuple(each.name for each in observed.tasks),
        ),
        status={**before, "observedGeneration": generation, "conditions": [stamped, *others]},
    )


def _status(stored: Object) -> Object:
    found = stored.get("status")
    return found if isinstance(found, dict) else {}


def _conditions(stored: Object) -> list[Object]:
    found = _status(stored).get("conditions")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _ended(stored: Object) -> bool:
    return any(
        each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in _conditions(stored)
    )
