"""The facts of a service's status; its conditions are apart."""

from typing import Any

from modelyard.base import ids
from modelyard.control.ir import names
from modelyard.control.ir.observed import Observed, ReplicaState
from modelyard.control.ir.route import Mirror, Route
from modelyard.control.plan import comparison
from modelyard.control.plan import revision as revisions
from modelyard.control.plan.service_conditions import Situation
from modelyard.control.plan.views import ServiceView


def body(situation: Situation) -> dict[str, Any]:
    """`status` without conditions; None where there is nothing to say."""
    view, rollout = situation.view, situation.rollout
    service = view.service
    latest_ready = service.status.latest_ready_revision
    digest = service.status.digest
    if rollout.target and rollout.traffic is rollout.target:
        latest_ready = rollout.target.name
        digest = rollout.target.inputs["model"]["digest"]
    members = [member for each in view.observed.units for member in each.members]
    owner = revisions.key(service)
    public = ids.public_ids(owner.namespace, owner.name)[-1]
    url = f"{view.gateway_url}/v2/models/{public}" if view.gateway_url else None
    by_unit = {revision.unit.name: revision.name for revision in view.revisions}
    return {
        "url": url,
        "latestCreatedRevision": rollout.target.name if rollout.target else None,
        "latestReadyRevision": latest_ready,
        "digest": digest,
        "replicas": sum(member.state is not ReplicaState.DRAINING for member in members),
        "readyReplicas": sum(member.state is ReplicaState.READY for member in members),
        "desiredReplicas": service.spec.replicas,
        "selector": names.selector(owner.name),
        "traffic": _traffic(view, by_unit, url) or None,
    }


def _traffic(view: ServiceView, revision_of: dict[str, str], url: str | None) -> list[dict[str, Any]]:
    """What is in force: shares, then copies, then addresses of revisions that get neither. url: of the model."""
    route = view.route.acknowledged
    if route is None:
        return []
    tags: dict[str, list[str]] = {}
    for version in route.versions:
        if not version.name.isdecimal():
            tags.setdefault(version.unit, []).append(version.name)
    rows: list[tuple[str, dict[str, Any]]] = [(each.unit, {"percent": each.weight}) for each in route.backends]
    if route.mirror is not None:
        rows.append((route.mirror.unit, _copies(view, route, route.mirror, revision_of)))
    shown = {unit for unit, _ in rows}
    rows += [(unit, {"percent": 0}) for unit in tags if unit not in shown]
    targets = []
    for unit, row in rows:
        if unit not in revision_of:
            continue
        first, *others = tags.get(unit) or [""]
        target = {"revision": revision_of[unit], **row}
        targets.append(target | _tag(first, url))
        targets += [{"revision": revision_of[unit], "percent": 0} | _tag(other, url) for other in others]
    return targets


def _copies(view: ServiceView, route: Route, mirror: Mirror, revision_of: dict[str, str]) -> dict[str, Any]:
    loads = {each.unit: each for each in view.load}
    serving = max(route.backends, key=lambda each: each.weight).unit if route.backends else ""
    stored = (each for each in view.service.status.traffic or () if each.revision == revision_of.get(mirror.unit))
    found = comparison.told(
        view.observed if mirror.compared_percent else Observed(),
        mirror.unit,
        comparison.Pair(loads.get(mirror.unit), loads.get(serving)),
        next((each.mirror for each in stored if each.mirror), None),
    )
    return {"percent": 0, "mirrorPercent": mirror.percent} | ({"mirror": found} if found else {})


def _tag(tag: str, url: str | None) -> dict[str, str]:
    if not tag:
        return {}
    return {"tag": tag, "url": f"{url}/versions/{tag}"} if url else {"tag": tag}
