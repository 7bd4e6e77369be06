"""What to say about a service: one condition for each thing that can go wrong, `Ready` first."""

from dataclasses import dataclass

from modelyard.api.model import Model
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.observed import ObservedReplica, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Route
from modelyard.control.plan import pods
from modelyard.control.plan.enforcement import enforced
from modelyard.control.plan.model_ready import model_ready
from modelyard.control.plan.rollout import Rollout, ready_replicas
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.traffic import Traffic
from modelyard.control.plan.views import ServiceView


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """A service with what was decided about it.

    refusal: why no revision can be made now; model: what it would be made from otherwise. traffic, route: the desired
    ones. new_revision: one is being recorded.
    """

    view: ServiceView
    refusal: Refusal | None
    model: Model | None
    rollout: Rollout
    traffic: Traffic
    route: Route
    new_revision: bool


def conditions(situation: Situation) -> tuple[Condition, ...]:
    """Ready: the declared spec is what answers, with all its replicas. Available: some revision answers."""
    return (
        _ready(situation),
        _available(situation),
        model_ready(situation.refusal, situation.model),
        _progressing(situation),
        _routes_ready(situation),
        *_traffic_ready(situation),
        *_enforced(situation),
    )


def _enforced(situation: Situation) -> tuple[Condition, ...]:
    view, target = situation.view, situation.rollout.target
    if target is None:
        return ()
    without = pods.without_effect(view.service.spec, view.capabilities)
    return enforced(target.unit.resources, view.capabilities, without)


def _ready(situation: Situation) -> Condition:
    problem = _problem(situation)
    if problem is not None:
        return Condition(type="Ready", status=Status.FALSE, reason=problem.reason, message=problem.message)
    replicas = situation.view.service.spec.replicas
    if replicas == 0:
        message = "replicas is 0: requests get 503"
        return Condition(type="Ready", status=Status.TRUE, reason=Reason.SCALED_TO_ZERO, message=message)
    message = f"{_answering(situation)} with {replicas} replica{'s' if replicas > 1 else ''}"
    return Condition(type="Ready", status=Status.TRUE, reason=Reason.SERVING, message=message)


def _answering(situation: Situation) -> str:
    """`digits-svc-00001 (90 %) and digits-svc-00002 (10 %) answer`."""
    of = {revision.unit.name: revision.name for revision in situation.view.revisions}
    backends = [each for each in situation.route.backends if each.unit in of]
    if len(backends) == 1:
        return f"{of[backends[0].unit]} answers"
    return f"{' and '.join(f'{of[each.unit]} ({each.weight} %)' for each in backends)} answer"


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
    return _shortcoming(situation, target)


def _shortcoming(situation: Situation, target: Revision) -> Refusal | None:
    """What keeps recorded revisions from answering as declared."""
    if situation.traffic.missing:
        return _missing(situation)
    starting = next((each for each in (target, *_others(situation)) if _lacks_replicas(situation, each)), None)
    if starting is not None:
        return _starting(situation, starting)
    if not _is_in_force(situation):
        return Refusal(reason=Reason.WAITING_FOR_GATEWAY, message=f"{target.name} is ready; the gateway is being told")
    return None


def _lacks_replicas(situation: Situation, revision: Revision) -> bool:
    return ready_replicas(situation.view.observed, revision.unit.name) < situation.view.service.spec.replicas


def _starting(situation: Situation, revision: Revision) -> Refusal:
    counted = _counted(situation, revision)
    message = f"{counted}{_still_served(situation)}"
    return _trouble(situation, revision, counted) or Refusal(reason=Reason.STARTING, message=message)


def _others(situation: Situation) -> tuple[Revision, ...]:
    """Revisions that the spec names, besides the newest one."""
    if situation.view.service.spec.traffic is None:
        return ()
    names = {split.revision for split in situation.view.service.spec.traffic}
    rollout = situation.rollout
    return tuple(each for each in rollout.lasting if each.name in names and each is not rollout.target)


def _counted(situation: Situation, revision: Revision) -> str:
    ready = ready_replicas(situation.view.observed, revision.unit.name)
    return f"{revision.name}: {ready} of {situation.view.service.spec.replicas} replicas ready"


def _missing(situation: Situation) -> Refusal:
    kept = ", ".join(sorted(revision.name for revision in situation.view.revisions))
    places = "; ".join(f"spec.traffic[{each.index}].revision: {each.revision}" for each in situation.traffic.missing)
    message = f"{places}: there is no such revision; expected latest or one of {kept}; the traffic stays as it is"
    return Refusal(reason=Reason.REVISION_NOT_FOUND, message=message)


def _traffic_ready(situation: Situation) -> tuple[Condition, ...]:
    """Whether requests are shared as `spec.traffic` says; nothing where it says nothing."""
    view, traffic = situation.view, situation.traffic
    if view.service.spec.traffic is None or not view.service.spec.replicas:
        return ()
    if traffic.missing:
        missing = _missing(situation)
        return (Condition(type="TrafficReady", status=Status.FALSE, reason=missing.reason, message=missing.message),)
    if traffic.waiting:
        counted = "; ".join(_counted(situation, each) for each in traffic.waiting)
        message = f"{counted}; until then it gets nothing, and the others get its share"
        return (Condition(type="TrafficReady", status=Status.FALSE, reason=Reason.STARTING, message=message),)
    if _is_in_force(situation):
        return (Condition(type="TrafficReady", status=Status.TRUE, reason=Reason.ROUTED),)
    return (Condition(type="TrafficReady", status=Status.UNKNOWN, reason=Reason.WAITING_FOR_GATEWAY),)


def _trouble(situation: Situation, revision: Revision, counted: str) -> Refusal | None:
    """The latest trouble of a revision's replicas, in their own words."""
    troubled = [member for member in _members(situation, revision) if member.trouble and not _is_ready(member)]
    if not troubled:
        return None
    member = max(troubled, key=lambda each: each.trouble.since if each.trouble else 0.0)
    trouble = member.trouble
    if trouble is None:
        return None
    reason = Reason(trouble.reason) if trouble.reason in Reason.__members__.values() else Reason.CRASHED
    return Refusal(reason=reason, message=f"{counted}: {trouble.message}{_still_served(situation)}")


def _members(situation: Situation, revision: Revision) -> tuple[ObservedReplica, ...]:
    units = situation.view.observed.units
    return tuple(member for each in units if each.unit.name == revision.unit.name for member in each.members)


def _is_ready(member: ObservedReplica) -> bool:
    return member.state is ReplicaState.READY


def _still_served(situation: Situation) -> str:
    target, is_shared = situation.rollout.target, situation.view.service.spec.traffic is not None
    by_unit = {revision.unit.name: revision for revision in situation.view.revisions}
    serving = [by_unit[each.unit] for each in situation.route.backends if each.unit in by_unit]
    if not serving or (serving == [target] and situation.refusal is None and not is_shared):
        return ""
    return f"; {' and '.join(each.name for each in serving)} keep{'s' if len(serving) == 1 else ''} serving"


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
    if situation.new_revision or (target and _under_way(situation) and situation.view.service.spec.replicas):
        name = "a new revision" if situation.new_revision or target is None else target.name
        return Condition(
            type="Progressing", status=Status.TRUE, reason=Reason.PROGRESSING, message=f"{name} is being rolled out"
        )
    return Condition(type="Progressing", status=Status.FALSE, reason=Reason.COMPLETE)


def _under_way(situation: Situation) -> bool:
    """Whether the newest revision does not get yet what it shall get."""
    target, acknowledged = situation.rollout.target, situation.view.route.acknowledged
    in_force = acknowledged.backends if acknowledged else ()
    if situation.view.service.spec.traffic is not None:
        return situation.rollout.traffic is not target or in_force != situation.route.backends
    return target is not None and [backend.unit for backend in in_force] != [target.unit.name]


def _routes_ready(situation: Situation) -> Condition:
    route = situation.view.route
    if route.rejected:
        return Condition(type="RoutesReady", status=Status.FALSE, reason=Reason.ROUTE_REJECTED, message=route.rejected)
    if _is_in_force(situation):
        return Condition(type="RoutesReady", status=Status.TRUE, reason=Reason.ROUTED)
    return Condition(type="RoutesReady", status=Status.UNKNOWN, reason=Reason.WAITING_FOR_GATEWAY)


def _is_in_force(situation: Situation) -> bool:
    """Whether requests go where they shall go; who may send them changes often, and at once for all services."""
    acknowledged = situation.view.route.acknowledged
    return acknowledged is not None and acknowledged.for_anybody == situation.route.for_anybody
