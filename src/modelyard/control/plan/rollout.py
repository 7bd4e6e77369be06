"""What `latest` means, and which revisions must run meanwhile."""

from dataclasses import dataclass

from modelyard.control.ir.observed import Observed, ObservedRoute, ReplicaState
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Route

KEEP_REVISIONS = 10
"""Old revisions kept for people to look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """target: the newest revision. traffic: what `latest` means now, None if nothing is ready for that.

    lasting: revisions that run for longer than the gateway needs to be told, newest first. running: revisions whose
    units must run, newest first. obsolete: revisions to forget.
    """

    target: Revision | None
    traffic: Revision | None
    lasting: tuple[Revision, ...]
    running: tuple[Revision, ...]
    obsolete: tuple[Revision, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What one step of a rollout depends on.

    latest_ready: the newest revision that has been ready, as last written to the status. in_transit: routes that the
    gateway was told and that may be in force, the latest last. named: the revisions that `spec.traffic` names; None
    where there is no `spec.traffic`.
    """

    revisions: tuple[Revision, ...]
    replicas: int
    latest_ready: str | None
    observed: Observed
    route: ObservedRoute
    in_transit: tuple[Route, ...] = ()
    named: tuple[Revision, ...] | None = None


def roll(step: Step) -> Rollout:
    """One step: the newest revision gets the traffic when it is as ready as those that serve, or fully.

    What serves runs until the gateway acknowledged that nothing goes there any more, and so does what the gateway was
    told to switch to. What is named runs in any case.
    """
    ordered = sorted(step.revisions, key=lambda revision: revision.number, reverse=True)
    if not ordered:
        return Rollout(target=None, traffic=None, lasting=(), running=(), obsolete=())
    target = ordered[0]
    by_unit = {revision.unit.name: revision for revision in ordered}
    acknowledged = step.route.acknowledged
    in_force = [by_unit[b.unit] for b in (acknowledged.backends if acknowledged else ()) if b.unit in by_unit]
    serving = _serving(step, target, in_force, by_unit)
    traffic = _traffic(step, target, serving, in_force)
    lasting = {target.name, *(revision.name for revision in step.named or ())}
    if traffic is not target:
        lasting.add(serving.name)
    told = {unit for route in (acknowledged, *step.in_transit) if route for unit in route.units}
    wanted = lasting | {by_unit[unit].name for unit in told if unit in by_unit}
    kept = {revision.name for revision in ordered[:KEEP_REVISIONS]} | wanted | {serving.name}
    return Rollout(
        target=target,
        traffic=traffic,
        lasting=tuple(revision for revision in ordered if revision.name in lasting),
        running=tuple(revision for revision in ordered if revision.name in wanted),
        obsolete=tuple(revision for revision in ordered if revision.name not in kept),
    )


def ready_replicas(observed: Observed, unit: str) -> int:
    """Replicas of a unit that can answer."""
    members = (member for each in observed.units if each.unit.name == unit for member in each.members)
    return sum(member.state is ReplicaState.READY for member in members)


def _serving(step: Step, target: Revision, in_force: list[Revision], by_unit: dict[str, Revision]) -> Revision:
    """What goes on serving until the newest revision takes over: of those in force the newest that is ready."""

    def ready(revision: Revision) -> int:
        return ready_replicas(step.observed, revision.unit.name)

    former = [revision for revision in in_force if revision is not target] or in_force
    if former:
        return max(former, key=lambda revision: (ready(revision) > 0, revision.number))
    told = (backend.unit for route in reversed(step.in_transit) for backend in reversed(route.backends))
    reachable = (by_unit[unit] for unit in told if unit in by_unit and ready(by_unit[unit]))
    recorded = (revision for revision in by_unit.values() if revision.name == step.latest_ready)
    return next(reachable, None) or next(recorded, target)


def _traffic(step: Step, target: Revision, serving: Revision, in_force: list[Revision]) -> Revision | None:
    if step.replicas == 0:
        return None
    new, old = (ready_replicas(step.observed, revision.unit.name) for revision in (target, serving))
    demanded = max((ready_replicas(step.observed, each.unit.name) for each in (*in_force, serving)), default=0)
    # One that has a share already keeps it when it loses a replica: the share is what somebody has declared.
    keeps = step.named is not None and target in in_force
    if new >= 1 and (keeps or new >= min(step.replicas, demanded)):
        return target
    return serving if old >= 1 else None
