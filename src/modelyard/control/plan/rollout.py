"""Which revision gets the traffic, and which ones must run meanwhile."""

from dataclasses import dataclass

from modelyard.control.ir.observed import Observed, ObservedRoute, ReplicaState
from modelyard.control.ir.revision import Revision

KEEP_REVISIONS = 10
"""Old revisions kept for people to look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """target: the newest revision. traffic: the one that requests shall go to, None if none is ready.

    running: revisions whose units must run, newest first. obsolete: revisions to forget.
    """

    target: Revision | None
    traffic: Revision | None
    running: tuple[Revision, ...]
    obsolete: tuple[Revision, ...]


def roll(
    revisions: tuple[Revision, ...],
    *,
    replicas: int,
    latest_ready: str | None,
    observed: Observed,
    route: ObservedRoute,
    in_transit: tuple[str, ...] = (),
) -> Rollout:
    """One step: the newest revision gets the traffic when it is as ready as the one that serves, or fully.

    The old one runs until the gateway acknowledged that nothing goes there any more, and so does one that the gateway
    was told to switch to (in_transit: such units, the latest last).
    """
    ordered = sorted(revisions, key=lambda revision: revision.number, reverse=True)
    if not ordered:
        return Rollout(target=None, traffic=None, running=(), obsolete=())
    target = ordered[0]
    by_name = {revision.name: revision for revision in ordered}
    by_unit = {revision.unit.name: revision for revision in ordered}
    in_force = [
        by_unit[b.unit] for b in (route.acknowledged.backends if route.acknowledged else ()) if b.unit in by_unit
    ]
    coming = [by_unit[unit] for unit in in_transit if unit in by_unit]
    reachable = [revision for revision in reversed(coming) if ready_replicas(observed, revision.unit.name)]
    serving = (*in_force, *reachable, by_name.get(latest_ready or "", target))[0]
    traffic = _traffic(target, serving, replicas, observed)
    wanted = {target.name, *(revision.name for revision in (*in_force, *coming))}
    if traffic is not target:
        wanted.add(serving.name)
    running = tuple(revision for revision in ordered if revision.name in wanted)
    kept = {revision.name for revision in ordered[:KEEP_REVISIONS]} | wanted | {serving.name}
    return Rollout(
        target=target,
        traffic=traffic,
        running=running,
        obsolete=tuple(revision for revision in ordered if revision.name not in kept),
    )


def ready_replicas(observed: Observed, unit: str) -> int:
    """Replicas of a unit that can answer."""
    members = (member for each in observed.units if each.unit.name == unit for member in each.members)
    return sum(member.state is ReplicaState.READY for member in members)


def _traffic(target: Revision, serving: Revision, replicas: int, observed: Observed) -> Revision | None:
    new, old = (ready_replicas(observed, revision.unit.name) for revision in (target, serving))
    if replicas == 0:
        return None
    if new >= 1 and new >= min(replicas, old):
        return target
    return serving if old >= 1 else None
