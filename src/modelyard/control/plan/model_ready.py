"""The condition ModelReady of whatever runs a model."""

from modelyard.api.model import Model
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.plan.runtimes import Refusal


def model_ready(refusal: Refusal | None, model: Model | None) -> Condition:
    """Also tells that reading a model again failed, while its old content keeps being used."""
    if refusal is None:
        own = next((c for c in (model and model.status.conditions) or () if c.type == "Ready"), None)
        if own is not None and own.status == "False" and own.reason in Reason.__members__.values():
            return Condition(type="ModelReady", status=Status.FALSE, reason=Reason(own.reason), message=own.message)
        return Condition(type="ModelReady", status=Status.TRUE, reason=Reason.PREPARED)
    if refusal.itself:
        return Condition(type="ModelReady", status=Status.UNKNOWN, reason=refusal.reason)
    known = Status.UNKNOWN if refusal.reason is Reason.MODEL_NOT_READY else Status.FALSE
    return Condition(type="ModelReady", status=known, reason=refusal.reason, message=refusal.message)
