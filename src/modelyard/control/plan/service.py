"""ModelService: its revisions, the units that run, the route, and what to say about it."""

from dataclasses import replace

from modelyard.api.service import ModelService
from modelyard.base import durations, ids, quantities
from modelyard.base.conditions import Condition, Reason
from modelyard.control.ir import names
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedRoute, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Route
from modelyard.control.ir.unit import DesiredUnit
from modelyard.control.plan import comparison, local_path, reference, status
from modelyard.control.plan import revision as revisions
from modelyard.control.plan import traffic as shares
from modelyard.control.plan.place import place
from modelyard.control.plan.rollout import Rollout, Step, roll
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.service_conditions import Situation, conditions
from modelyard.control.plan.service_status import body
from modelyard.control.plan.traffic import Traffic
from modelyard.control.plan.views import Event, Outcome, OwnedModel, ServiceView

RETRIES = 3
"""Where `spec.retries` says nothing."""


def desire(view: ServiceView, now: float) -> Outcome:
    """Everything that must exist for a service, and its status."""
    view = _without_strangers(view)
    service = view.service
    resolved = revisions.resolve(view)
    new = _new_revision(view, resolved)
    rollout, traffic = _traffic(view)
    route = _route(view, rollout, traffic)
    situation = Situation(
        view=view,
        refusal=resolved if isinstance(resolved, Refusal) else None,
        model=None if isinstance(resolved, Refusal) else resolved.model,
        rollout=rollout,
        traffic=traffic,
        route=route,
        new_revision=new is not None,
    )
    owned = _owned(view)
    found = conditions(situation)
    generation = service.metadata.generation
    stamped = status.conditions(found, service.status.conditions, generation, now)
    told = status.status(body(situation), stamped, generation)
    return Outcome(
        desired=Desired(
            units=_units(view, rollout),
            routes=(route,),
            records=(new,) if new else (),
            obsolete=tuple(revision.name for revision in rollout.obsolete),
        ),
        status=told,
        events=status.events(found, service.status.conditions),
        happened=_happened(new),
        models=(owned,) if owned and all(each.metadata.name != owned.name for each in view.models) else (),
        obsolete_models=_obsolete_models(view, owned),
        numbers_only=comparison.only_numbers_differ(service.status, told),
        wake_at=comparison.look_again(view.route.acknowledged, now),
        passing=_is_passing(new, found),
    )


def _without_strangers(view: ServiceView) -> ServiceView:
    """What an earlier service of the same name left running under our units' names never counts as ours."""
    recorded = {revision.unit.name: revision.unit for revision in view.revisions}
    ours = tuple(each for each in view.observed.units if recorded.get(each.unit.name, each.unit) == each.unit)
    return replace(view, observed=Observed(units=ours, tasks=view.observed.tasks))


def _owned(view: ServiceView) -> OwnedModel | None:
    """Not where its artifact could never be read."""
    name, spec = view.service.metadata.name, view.service.spec
    if local_path.of_reference(spec.model, "spec.model", view.capabilities) is not None:
        return None
    return reference.owned_model(name, spec.model, spec.service_account_name, spec.pod_template)


def _traffic(view: ServiceView) -> tuple[Rollout, Traffic]:
    """What runs, and where requests shall go."""
    service = view.service
    splits, replicas = service.spec.traffic, service.spec.replicas
    named, missing = shares.named(splits, view.revisions)
    rollout = roll(
        Step(
            revisions=view.revisions,
            replicas=replicas,
            latest_ready=service.status.latest_ready_revision,
            observed=view.observed,
            route=view.route,
            in_transit=view.in_transit,
            named=named,
        )
    )
    if splits is None:
        return rollout, shares.plain(rollout)
    return rollout, shares.share(
        splits, rollout, replicas=replicas, observed=view.observed, route=view.route, missing=missing
    )


def _units(view: ServiceView, rollout: Rollout) -> tuple[DesiredUnit, ...]:
    """The units of the running revisions; at zero replicas those that the gateway still sends requests to."""
    replicas = view.service.spec.replicas
    if replicas:
        return tuple(place(revision, replicas) for revision in rollout.running)
    return _in_use(view.observed, view.route, view.in_transit)


def _in_use(observed: Observed, route: ObservedRoute, in_transit: tuple[Route, ...] = ()) -> tuple[DesiredUnit, ...]:
    in_use = {unit for each in (route.acknowledged, *in_transit) if each for unit in each.units}
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


def _route(view: ServiceView, rollout: Rollout, traffic: Traffic) -> Route:
    service, spec = view.service, view.service.spec
    owner = revisions.key(service)
    ids_of_route = ids.public_ids(owner.namespace, owner.name)
    return Route(
        owner=owner,
        ids=ids_of_route,
        backends=traffic.backends,
        timeout_seconds=durations.parse(spec.timeout),
        unavailable="" if traffic.backends else _unavailable(service, rollout, view.observed),
        versions=traffic.versions,
        mirror=traffic.mirror,
        sticky_header=spec.sticky.header.lower() if spec.sticky else "",
        retries=RETRIES if spec.retries is None else spec.retries,
        max_concurrency=spec.max_concurrency or 0,
        max_request_bytes=_bytes(spec.max_request_size),
        compressed=bool(spec.compression),
        internal=spec.visibility == "internal",
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


def _bytes(size: int | str | None) -> int:
    return 0 if size is None else max(1, quantities.whole(size))


def _happened(new: Revision | None) -> tuple[Event, ...]:
    return (Event(type="Normal", reason=Reason.REVISION_CREATED, message=f"recorded {new.name}"),) if new else ()


def _is_passing(new: Revision | None, found: tuple[Condition, ...]) -> bool:
    """Whether a revision that is just being recorded, or the gateway's answer alone, is missing: milliseconds."""
    ready = next(each for each in found if each.type == "Ready")
    return new is not None or ready.reason is Reason.WAITING_FOR_GATEWAY


def _obsolete_models(view: ServiceView, owned: OwnedModel | None) -> tuple[str, ...]:
    """Owned Models that neither the spec nor a kept revision names."""
    needed = {revision.inputs["model"]["name"] for revision in view.revisions} | ({owned.name} if owned else set())
    return reference.obsolete_models(view.models, view.service.metadata.uid, needed)
