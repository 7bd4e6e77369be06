"""ModelStream: its revisions, the runners that follow, and what to say about them.

A new revision's runners start beside those of the old one and find no free partition: they stand by. When as many of
them are ready as score now, or as are asked for, the old ones end after their last commit, and leave the partitions to
whoever stands by. Who scores what is between the runners; a wrong claim costs time and no record.
"""

from dataclasses import replace

import msgspec

from modelyard.base.conditions import Condition, Reason
from modelyard.control.ir import names
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedRoute
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import DesiredUnit
from modelyard.control.plan import reference, status, stream_status, stream_work
from modelyard.control.plan.place import place
from modelyard.control.plan.revision import Inputs
from modelyard.control.plan.rollout import Rollout, Step, roll
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.stream_conditions import Situation, conditions
from modelyard.control.plan.stream_report import reports
from modelyard.control.plan.stream_work import KIND, key
from modelyard.control.plan.views import Event, Outcome, StreamView

__all__ = ["KIND", "desire", "key"]


def desire(view: StreamView, now: float) -> Outcome:
    """Everything that must exist for a stream, and its status."""
    view = _without_strangers(view)
    stream, spec = view.stream, view.stream.spec
    resolved = stream_work.resolve(view)
    # Nothing is made before the finalizer is there: what is begun at the broker must be removed in the end.
    new = _new_revision(view, resolved) if names.FINALIZER_CLEAN in stream.metadata.finalizers else None
    replicas = 0 if spec.suspend else spec.replicas
    rollout = roll(
        Step(
            revisions=view.revisions,
            replicas=replicas,
            latest_ready=stream.status.latest_ready_revision,
            observed=view.observed,
            route=ObservedRoute(),
        )
    )
    told = reports(view.observed, spec.partitions)
    body = stream_status.body(stream, rollout, view.observed, told, now)
    moving = stream_status.moving(stream.status, body, now)
    situation = Situation(
        view=view,
        refusal=resolved if isinstance(resolved, Refusal) else None,
        model=None if isinstance(resolved, Refusal) else resolved.model,
        rollout=rollout,
        new_revision=new is not None,
        replicas=replicas,
        told=told,
        body=body,
        moving=frozenset(moving),
    )
    outcome = _outcome(situation, now)
    units = _units(rollout, replicas, stream_status.begun(body))
    obsolete = tuple(revision.name for revision in rollout.obsolete)
    return replace(
        outcome,
        desired=Desired(units=units, records=(new,) if new else (), obsolete=obsolete),
        events=(*_recorded(new), *outcome.events),
        wake_at=min(moving.values(), default=None),
    )


def _outcome(situation: Situation, now: float) -> Outcome:
    """What is said, and the owned Models."""
    view, stream = situation.view, situation.view.stream
    generation, before = stream.metadata.generation, stream.status.conditions
    found: tuple[Condition, ...] = conditions(situation)
    told = status.status(dict(situation.body), status.conditions(found, before, generation, now), generation)
    owned = stream_work.owned_model(stream, view.capabilities)
    needed = {revision.inputs["model"]["name"] for revision in view.revisions} | ({owned.name} if owned else set())
    return Outcome(
        status=told,
        events=status.events(found, before),
        models=(owned,) if owned and all(each.metadata.name != owned.name for each in view.models) else (),
        obsolete_models=reference.obsolete_models(view.models, stream.metadata.uid, needed),
        held=True,
        numbers_only=stream_status.only_numbers_differ(stream.status, told),
    )


def _without_strangers(view: StreamView) -> StreamView:
    """What an earlier stream of the same name left running under our units' names never counts as ours."""
    recorded = {revision.unit.name: revision.unit for revision in view.revisions}
    ours = tuple(each for each in view.observed.units if recorded.get(each.unit.name, each.unit) == each.unit)
    return replace(view, observed=Observed(units=ours, tasks=view.observed.tasks))


def _new_revision(view: StreamView, resolved: Inputs | Refusal) -> Revision | None:
    if isinstance(resolved, Refusal):
        return None
    latest = max(view.revisions, key=lambda revision: revision.number, default=None)
    if latest and latest.inputs_hash == names.inputs_hash(stream_work.declared(view.stream, resolved)):
        return None
    return stream_work.record(view.stream, resolved, latest.number + 1 if latest else 1)


def _units(rollout: Rollout, replicas: int, begun: tuple[int, ...]) -> tuple[DesiredUnit, ...]:
    if not replicas:
        return ()
    return tuple(msgspec.structs.replace(place(each, replicas), begun=begun) for each in rollout.running)


def _recorded(new: Revision | None) -> tuple[Event, ...]:
    return (Event(type="Normal", reason=Reason.REVISION_CREATED, message=f"recorded {new.name}"),) if new else ()
