"""What to say about a service: one condition for each thing that can go wrong, `Ready` first."""

from dataclasses import dataclass

from modelyard.api.model import Model
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.observed import ObservedReplica, ReplicaState
from modelyard.control.ir.route import Route
from modelyard.control.plan.enforcement import enforced
from modelyard.control.plan.model_ready import model_ready
from modelyard.control.plan.rollout import Rollout, ready_replicas
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.views import ServiceView


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """A service with what was decided about it.

    refusal: why no revision can be made now; model: what it would be made from otherwise. route: the desired one.
    new_revision: one is being recorded.
    """

    view: ServiceView
    refusal: Refusal | None
    model: Model | None
    rollout: Rollout
    route: Route
    new_revision: bool


def conditions(situation: Situation) -> tuple[Condition, ...]:
    """Ready: the declared spec is what answers, with all its replicas. Available: some revision answers."""
    target = situation.rollout.target
    return (
        _ready(situation),
        _available(situation),
        model_ready(situation.refusal, situation.model),
        _progressing(situation),
        _routes_ready(situation),
        *(enforced(target.unit.resources, situation.view.capabilities) if target else ()),
    )


def _ready(situation: Situation) -> Condition:
    problem = _problem(situation)
    if problem is not None:
        return Condition(type="Ready", status=Status.FALSE, reason=problem.reason, message=problem.message)
    replicas = situation.view.service.spec.replicas
    if replicas == 0:
        message = "replicas is 0: requests get 503"
        return Condition(type="Ready", status=Status.TRUE, reason=Reason.SCALED_TO_ZERO, message=message)
    target = situation.rollout.target
    name = target.name if target else ""
    message = f"{name} answers with {replicas} replica{'s' if replicas > 1 else ''}"
    return Condition(type="Ready", status=Status.TRUE, reason=Reason.SERVING, message=message)


def _problem(situation: Situation) -> Refusal | None:
    """The most telling reason for not being ready: what is missing, what fails, then what is still under way."""
    view, rollout = situation.view, situation.rollout
    if situation.refusal is not None:
        return Refusal(reason=situation.refusal.reason, message=situation.refusal.message + _still_served(situation))
    if view.route.rejected:
        message = f"the gateway refused the route: {view.route.rejected}; the previous one stays in force"
        return Refusal(reason=Reason.ROUTE_REJECTED, message=message)
    target = rollout.target
    if target is None or situation.new_revision:
        return Refusal(reason=Reason.PROGRESSING, message="a new revision is being recorded" + _still_served(situation))
    replicas = view.service.spec.replicas
    ready = ready_replicas(view.observed, target.unit.name)
    if ready < replicas:
        counted = f"{target.name}: {ready} of {replicas} replicas ready"
        return _trouble(situation, counted) or Refusal(
            reason=Reason.STARTING, message=f"{counted}{_still_served(situation)}"
        )
    if view.route.acknowledged != situation.route:
        return Refusal(reason=Reason.WAITING_FOR_GATEWAY, message=f"{target.name} is ready; the gateway is being told")
    return None


def _trouble(situation: Situation, counted: str) -> Refusal | None:
    """The latest trouble of the newest revision's replicas, in their own words."""
    troubled = [member for member in _target_members(situation) if member.trouble and not _is_ready(member)]
    if not troubled:
        return None
    member = max(troubled, key=lambda each: each.trouble.since if each.trouble else 0.0)
    trouble = member.trouble
    if trouble is None:
        return None
    reason = Reason(trouble.reason) if trouble.reason in Reason.__members__.values() else Reason.CRASHED
    return Refusal(reason=reason, message=f"{counted}: {trouble.message}{_still_served(situation)}")


def _target_members(situation: Situation) -> tuple[ObservedReplica, ...]:
    target = situation.rollout.target
    units = situation.view.observed.units
    return tuple(member for each in units if target and each.unit.name == target.unit.name for member in each.members)


def _is_ready(member: ObservedReplica) -> bool:
    return member.state is ReplicaState.READY


def _still_served(situation: Situation) -> str:
    traffic, target = situation.rollout.traffic, situation.rollout.target
    if traffic is None or (traffic is target and situation.refusal is None):
        return ""
    return f"; {traffic.name} keeps serving"


def _available(situation: Situation) -> Condition:
    acknowledged = situation.view.route.acknowledged
    units = [backend.unit for backend in acknowledged.backends] if acknowledged else []
    ready = sum(ready_replicas(situation.view.observed, unit) for unit in units)
    if ready:
        message = f"{ready} replica{'s' if ready > 1 else ''} can answer"
        return Condition(type="Available", status=Status.TRUE, reason=Reason.SERVING, message=message)
    if situation.view.service.spec.replicas == 0:
        return Condition(type="Available", status=Status.FALSE, reason=Reason.SCALED_TO_ZERO, message="no replicas")
    return Condition(type="Available", status=Status.FALSE, reason=Reason.STARTING, message="no replica can answer")


def _progressing(situation: Situation) -> Condition:
    target = situation.rollout.target
    acknowledged = situation.view.route.acknowledged
    in_force = [backend.unit for backend in acknowledged.backends] if acknowledged else []
    if situation.new_revision or (target and in_force != [target.unit.name] and situation.view.service.spec.replicas):
        name = "a new revision" if situation.new_revision or target is None else target.name
        return Condition(
            type="Progressing", status=Status.TRUE, reason=Reason.PROGRESSING, message=f"{name} is being rolled out"
        )
    return Condition(type="Progressing", status=Status.FALSE, reason=Reason.COMPLETE)


def _routes_ready(situation: Situation) -> Condition:
    route = situation.view.route
    if route.rejected:
        return Condition(type="RoutesReady", status=Status.FALSE, reason=Reason.ROUTE_REJECTED, message=route.rejected)
    if route.acknowledged == situation.route:
        return Condition(type="RoutesReady", status=Status.TRUE, reason=Reason.ROUTED)
    return Condition(type="RoutesReady", status=Status.UNKNOWN, reason=Reason.WAITING_FOR_GATEWAY)
