"""AccessPolicy: what it means for services, and what to say about it."""

from modelyard.api.access import AccessPolicy
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.plan import status
from modelyard.control.plan.views import Outcome


def desire(policy: AccessPolicy, now: float) -> Outcome:
    """Its status."""
    found = (Condition(type="Ready", status=Status.TRUE, reason=Reason.VALID),)
    generation = policy.metadata.generation
    stamped = status.conditions(found, policy.status.conditions, generation, now)
    return Outcome(status=status.status({}, stamped, generation))
