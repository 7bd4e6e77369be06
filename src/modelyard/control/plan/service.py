"""ModelService: its revisions, the units that run, the route, and what to say about it."""

from dataclasses import replace
from typing import Any

from modelyard.api.service import ModelService
from modelyard.base import durations, ids
from modelyard.base.conditions import Condition, Reason
from modelyard.control.ir import names
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedRoute, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Backend, Route
from modelyard.control.ir.unit import DesiredUnit
from modelyard.control.plan import reference, status
from modelyard.control.plan import revision as revisions
from modelyard.control.plan.place import place
from modelyard.control.plan.rollout import Rollout, roll
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.service_conditions import Situation, conditions
from modelyard.control.plan.views import Event, Outcome, OwnedModel, ServiceView


def desire(view: ServiceView, now: float) -> Outcome:
    """Everything that must exist for a service, and its status."""
    view = _without_strangers(view)
    service = view.service
    resolved = revisions.resolve(view)
    new = _new_revision(view, resolved)
    rollout = roll(
        view.revisions,
        replicas=service.spec.replicas,
        latest_ready=service.status.latest_ready_revision,
        observed=view.observed,
        route=view.route,
        in_transit=view.in_transit,
    )
    route = _route(view, rollout)
    situation = Situation(
        view=view,
        refusal=resolved if isinstance(resolved, Refusal) else None,
        model=None if isinstance(resolved, Refusal) else resolved.model,
        rollout=rollout,
        route=route,
        new_revision=new is not None,
    )
    owned = reference.owned_model(service.metadata.name, service.spec.model)
    found = conditions(situation)
    generation = service.metadata.generation
    stamped = status.conditions(found, service.status.conditions, generation, now)
    return Outcome(
        desired=Desired(
            units=_units(view, rollout),
            routes=(route,),
            records=(new,) if new else (),
            obsolete=tuple(revision.name for revision in rollout.obsolete),
        ),
        status=status.status(_body(situation), stamped, generation),
        events=_events(view, new, found),
        models=(owned,) if owned and all(each.metadata.name != owned.name for each in view.models) else (),
        obsolete_models=_obsolete_models(view, owned),
    )


def _without_strangers(view: ServiceView) -> ServiceView:
    """What an earlier service of the same name left running under our units' names never counts as ours."""
    recorded = {revision.unit.name: revision.unit for revision in view.revisions}
    ours = tuple(each for each in view.observed.units if recorded.get(each.unit.name, each.unit) == each.unit)
    return replace(view, observed=Observed(units=ours, tasks=view.observed.tasks))


def _units(view: ServiceView, rollout: Rollout) -> tuple[DesiredUnit, ...]:
    """The units of the running revisions; at zero replicas those that the gateway still sends requests to."""
    replicas = view.service.spec.replicas
    if replicas:
        return tuple(place(revision, replicas) for revision in rollout.running)
    return _in_use(view.observed, view.route, view.in_transit)


def _in_use(observed: Observed, route: ObservedRoute, in_transit: tuple[str, ...] = ()) -> tuple[DesiredUnit, ...]:
    acknowledged = (backend.unit for backend in (route.acknowledged.backends if route.acknowledged else ()))
    in_use = {*acknowledged, *in_transit}
    return tuple(
        DesiredUnit(unit=each.unit, replicas=each.replicas)
        for each in observed.units
        if each.unit.name in in_use and each.replicas
    )


def desire_deleted(observed: Observed, route: ObservedRoute) -> Outcome:
    """A service that is gone: its units end when the gateway acknowledged that its route is gone."""
    return Outcome(desired=Desired(units=_in_use(observed, route)))


def _new_revision(view: ServiceView, resolved: revisions.Inputs | Refusal) -> Revision | None:
    if isinstance(resolved, Refusal):
        return None
    latest = max(view.revisions, key=lambda revision: revision.number, default=None)
    if latest and latest.inputs_hash == names.inputs_hash(revisions.declared(resolved)):
        return None
    return revisions.record(view.service, resolved, latest.number + 1 if latest else 1)


def _route(view: ServiceView, rollout: Rollout) -> Route:
    service = view.service
    owner = revisions.key(service)
    ids_of_route = ids.public_ids(owner.namespace, owner.name)
    backends = (Backend(unit=rollout.traffic.unit.name),) if rollout.traffic else ()
    return Route(
        owner=owner,
        ids=ids_of_route,
        backends=backends,
        timeout_seconds=durations.parse(service.spec.timeout),
        unavailable="" if backends else _unavailable(service, rollout, view.observed),
        access=view.access,
    )


def _unavailable(service: ModelService, rollout: Rollout, observed: Observed) -> str:
    """What callers read: that it is not their fault, without the inner details that only its owner may see."""
    model = ids.public_ids(service.metadata.namespace, service.metadata.name)[-1]
    if service.spec.replicas == 0:
        return f"model {model} is scaled to zero replicas"
    started = any(member.state is ReplicaState.STARTING for each in observed.units for member in each.members)
    state = "is starting" if started else "has no ready replica" if rollout.target else "is not ready"
    return f"model {model} {state}; its owner can ask 'modelyard why {service.metadata.name}'"


def _body(situation: Situation) -> dict[str, Any]:
    view, rollout = situation.view, situation.rollout
    service = view.service
    latest_ready = service.status.latest_ready_revision
    digest = service.status.digest
    if rollout.target and rollout.traffic is rollout.target:
        latest_ready = rollout.target.name
        digest = rollout.target.inputs["model"]["digest"]
    by_unit = {revision.unit.name: revision.name for revision in view.revisions}
    in_force = view.route.acknowledged.backends if view.route.acknowledged else ()
    members = [member for each in view.observed.units for member in each.members]
    owner = revisions.key(service)
    public = ids.public_ids(owner.namespace, owner.name)[-1]
    return {
        "url": f"{view.gateway_url}/v2/models/{public}" if view.gateway_url else None,
        "latestCreatedRevision": rollout.target.name if rollout.target else None,
        "latestReadyRevision": latest_ready,
        "digest": digest,
        "replicas": sum(member.state is not ReplicaState.DRAINING for member in members),
        "readyReplicas": sum(member.state is ReplicaState.READY for member in members),
        "desiredReplicas": service.spec.replicas,
        "selector": names.selector(owner.name),
        "traffic": [
            {"revision": by_unit[backend.unit], "percent": backend.weight}
            for backend in in_force
            if backend.unit in by_unit
        ]
        or None,
    }


def _events(view: ServiceView, new: Revision | None, found: tuple[Condition, ...]) -> tuple[Event, ...]:
    created = (Event(type="Normal", reason=Reason.REVISION_CREATED, message=f"recorded {new.name}"),) if new else ()
    return (*created, *status.events(found, view.service.status.conditions))


def _obsolete_models(view: ServiceView, owned: OwnedModel | None) -> tuple[str, ...]:
    """Owned Models that neither the spec nor a kept revision names."""
    needed = {revision.inputs["model"]["name"] for revision in view.revisions} | ({owned.name} if owned else set())
    return reference.obsolete_models(view.models, view.service.metadata.uid, needed)
