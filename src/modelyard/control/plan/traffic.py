"""`spec.traffic`: which revision gets which share of the requests, an address of its own, or copies of requests.

A share goes to a revision once it is as ready as those that serve; until then, and while no replica of it is ready, it
goes to the others in proportion to theirs. Where none has one that is ready, those in force go on.
"""

from dataclasses import dataclass

from modelyard.api.service import LATEST, TrafficSplit
from modelyard.control.ir.observed import Observed, ObservedRoute
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.route import Backend, Mirror, Route, Version
from modelyard.control.plan.rollout import Rollout, ready_replicas


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A target whose revision is not there. index: in spec.traffic."""

    index: int
    revision: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Where requests shall go. waiting: revisions that cannot take their share, or copies, yet.

    missing: if any, all is left as it is in force.
    """

    backends: tuple[Backend, ...] = ()
    versions: tuple[Version, ...] = ()
    mirror: Mirror | None = None
    waiting: tuple[Revision, ...] = ()
    missing: tuple[Missing, ...] = ()


def named(
    splits: tuple[TrafficSplit, ...] | None, revisions: tuple[Revision, ...]
) -> tuple[tuple[Revision, ...] | None, tuple[Missing, ...]]:
    """The revisions that are named, each once (None where traffic is not declared), and those that are not there."""
    if splits is None:
        return None, ()
    by_name = {revision.name: revision for revision in revisions}
    names = [each.revision for each in splits]
    missing = (
        Missing(index=index, revision=name)
        for index, name in enumerate(names)
        if name != LATEST and name not in by_name
    )
    return tuple(by_name[name] for name in dict.fromkeys(names) if name in by_name), tuple(missing)


def plain(rollout: Rollout) -> Traffic:
    """Without `spec.traffic`: all requests go to the newest revision, as soon as it is ready."""
    return Traffic(backends=(Backend(unit=rollout.traffic.unit.name),) if rollout.traffic else ())


def share(
    splits: tuple[TrafficSplit, ...],
    rollout: Rollout,
    *,
    replicas: int,
    observed: Observed,
    route: ObservedRoute,
    missing: tuple[Missing, ...] = (),
) -> Traffic:
    """As declared, as far as revisions are ready."""
    by_name = {revision.name: revision for revision in rollout.running}
    recorded = {revision.unit.name for revision in rollout.running}
    if replicas == 0 or rollout.target is None:
        return Traffic(missing=missing)
    in_force = route.acknowledged
    if missing and in_force is not None and in_force.backends and recorded.issuperset(in_force.units):
        # Not even shared anew: what is in force would be forgotten with the first replica that is lost.
        return Traffic(backends=in_force.backends, versions=in_force.versions, mirror=in_force.mirror, missing=missing)
    newest = rollout.traffic or rollout.target
    targets = [
        (split, newest if split.revision == LATEST else by_name[split.revision])
        for split in splits
        if split.revision == LATEST or split.revision in by_name
    ]
    serving = [b.unit for b in (in_force.backends if in_force else ()) if b.unit in recorded]
    demanded = min(replicas, max((ready_replicas(observed, unit) for unit in serving), default=0))
    percents: dict[str, int] = {}
    for split, revision in targets:
        percents[revision.unit.name] = percents.get(revision.unit.name, 0) + (split.percent or 0)
    able = {
        unit: percent
        for unit, percent in percents.items()
        if percent and _takes(ready_replicas(observed, unit), 1 if unit in serving else demanded)
    }
    backends = _backends(able or _going_on(in_force, recorded, observed, rollout))
    return Traffic(
        backends=backends,
        versions=_versions(targets, rollout, observed),
        mirror=_mirror(targets, {each.unit for each in backends}, observed),
        waiting=_waiting(targets, able, observed),
        missing=missing,
    )


def _takes(ready: int, demanded: int) -> bool:
    return ready >= max(1, demanded)


def _waiting(
    targets: list[tuple[TrafficSplit, Revision]], able: dict[str, int], observed: Observed
) -> tuple[Revision, ...]:
    found = {
        revision.name: revision
        for split, revision in targets
        if (split.percent and revision.unit.name not in able)
        or (split.mirror is not None and not ready_replicas(observed, revision.unit.name))
    }
    return tuple(found.values())


def _going_on(in_force: Route | None, recorded: set[str], observed: Observed, rollout: Rollout) -> dict[str, int]:
    """What serves now goes on while nothing of what is declared can."""
    former = {
        each.unit: each.weight
        for each in (in_force.backends if in_force else ())
        if each.unit in recorded and ready_replicas(observed, each.unit)
    }
    return former or ({rollout.traffic.unit.name: 100} if rollout.traffic else {})


def _backends(shares: dict[str, int]) -> tuple[Backend, ...]:
    """In proportion, in whole percents that add up to 100: what is left over goes where most was cut off."""
    total = sum(shares.values())
    if not total:
        return ()
    whole = {unit: share * 100 // total for unit, share in shares.items()}
    cut = sorted(shares, key=lambda unit: shares[unit] * 100 % total, reverse=True)
    for unit in cut[: 100 - sum(whole.values())]:
        whole[unit] += 1
    return tuple(Backend(unit=unit, weight=weight) for unit, weight in whole.items())


def _mirror(targets: list[tuple[TrafficSplit, Revision]], serving: set[str], observed: Observed) -> Mirror | None:
    """None while the revision serves callers itself, or cannot answer: then there is nothing to compare."""
    for split, revision in targets:
        unit = revision.unit.name
        if split.mirror is not None and unit not in serving and serving and ready_replicas(observed, unit):
            return Mirror(unit=unit, percent=split.mirror.percent, compared_percent=split.mirror.compare_percent)
    return None


def _versions(
    targets: list[tuple[TrafficSplit, Revision]], rollout: Rollout, observed: Observed
) -> tuple[Version, ...]:
    """Numbers of all revisions that go on running, then tags; once the driver knows them, so that no route waits."""
    known = {each.unit.name for each in observed.units}
    found = [(str(revision.number), revision) for revision in rollout.lasting]
    found += [(split.tag, revision) for split, revision in targets if split.tag]
    return tuple(
        Version(name=name, unit=revision.unit.name, number=str(revision.number))
        for name, revision in found
        if revision.unit.name in known
    )
