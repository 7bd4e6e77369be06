"""The golden cases of the Envoy renderer, for those who compare them and those who feed them to Envoy."""

import json
from pathlib import Path
from typing import Any

import msgspec
import yaml

from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.render import xds, xds_access, xds_listener, xds_traffic
from modelyard.control.render.xds_door import Door

CASES = sorted((Path(__file__).parent / "golden" / "xds").glob("*.in.yaml"))


def case(path: Path) -> tuple[tuple[Route, ...], tuple[Endpoints, ...]]:
    """What is given."""
    given = yaml.safe_load(path.read_text())
    routes = msgspec.convert(given.get("routes", []), tuple[Route, ...])
    return routes, msgspec.convert(given.get("endpoints", []), tuple[Endpoints, ...])


def platform(path: Path) -> Platform | None:
    """What holds for all routes, in the cases that are about it."""
    given = yaml.safe_load(path.read_text()).get("platform")
    return None if given is None else msgspec.convert(given, Platform)


def extensions(path: Path) -> dict[str, Any]:
    """What Envoy is told of a platform."""
    given = platform(path)
    return {} if given is None else _copied({"extensions": list(xds_access.extensions(given).values())})


def rendered(routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> dict[str, Any]:
    """Everything that Envoy is told, without shared parts; the listener and its scopes only where no route is given."""
    if not routes:
        fixed = [xds.scope(name, None, ("iris.default",), "1.2.3") for name in xds.SERVER_SCOPES]
        return _copied({"listener": xds_listener.listener(Door(port=8080), "access.log"), "scopes": fixed})
    demands = {unit: xds_traffic.demands(route) for route in routes for unit in route.units}
    everything = {
        "scopes": [xds.scope(public_id, route) for route in routes for public_id in route.ids],
        "clusters": [xds.cluster(each.unit, "", demands[each.unit]) for each in endpoints],
        "assignments": [xds.assignment(each) for each in endpoints],
    }
    return _copied(everything)


def _copied(value: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    return copy
