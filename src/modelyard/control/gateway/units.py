"""The clusters and endpoints that Envoy is told about: those that a route names, and no others."""

from typing import Any, Protocol

from modelyard.base.errors import UserError
from modelyard.control.ir.route import Endpoints
from modelyard.control.render import xds


class Discovery(Protocol):
    """What `Ads` offers: a table that is sent to Envoy, and Envoy's answers."""

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None: ...

    def remove(self, kind: str, name: str) -> None: ...

    def holds(self, kind: str, name: str) -> bool: ...

    def refusal(self, kind: str, name: str) -> str: ...


class Units:
    """Endpoints as published, and as told. A unit that is no longer published keeps its last endpoints while named."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._published: dict[str, Endpoints] = {}
        self._told: dict[str, Endpoints] = {}
        self._in_force: dict[str, Endpoints] = {}
        self._refused: dict[str, tuple[Endpoints, str]] = {}

    def publish(self, endpoints: tuple[Endpoints, ...]) -> set[str]:
        """Take new endpoints; those of units that Envoy knows go to it at once. Returns units that changed."""
        fresh = {each.unit: each for each in endpoints}
        changed = {unit for unit, each in fresh.items() if self._published.get(unit) != each}
        self._published = fresh
        for unit in changed & self._told.keys():
            self._tell(fresh[unit])
        return changed

    def tell(self, unit: str) -> bool:
        """Make sure that Envoy is told about a unit. False: nothing is known of it yet."""
        if unit not in self._told and unit in self._published:
            self._tell(self._published[unit])
        return unit in self._told

    def known(self, unit: str) -> bool:
        """Whether Envoy acknowledged the cluster and its latest endpoints."""
        return (
            unit in self._told
            and self._told[unit] == self._published.get(unit, self._told[unit])
            and self._discovery.holds(xds.CLUSTER, unit)
            and self._discovery.holds(xds.ASSIGNMENT, unit)
        )

    def refusal(self, unit: str) -> str:
        """Why the latest endpoints of a unit cannot be in force, or ""."""
        endpoints, why = self._refused.get(unit, (None, ""))
        return (why if endpoints == self._published.get(unit) else "") or self._discovery.refusal(xds.CLUSTER, unit)

    def take_answer(self, unit: str) -> None:
        """Envoy may have answered: what it refused is put back to what is in force, if there is anything."""
        told = self._told.get(unit)
        if told is None:
            return
        why = self._discovery.refusal(xds.ASSIGNMENT, unit)
        if why:
            self._refuse(told, why)
        elif self._discovery.holds(xds.ASSIGNMENT, unit):
            self._in_force[unit] = told

    def forget(self, unit: str) -> None:
        """Nothing names it any more."""
        if self._told.pop(unit, None) is not None:
            self._in_force.pop(unit, None)
            self._refused.pop(unit, None)
            self._discovery.remove(xds.CLUSTER, unit)
            self._discovery.remove(xds.ASSIGNMENT, unit)

    def _tell(self, endpoints: Endpoints) -> None:
        self._told[endpoints.unit] = endpoints
        try:
            # Envoy asks for the endpoints when it gets the cluster.
            self._discovery.put(xds.ASSIGNMENT, endpoints.unit, xds.assignment(endpoints))
            self._discovery.put(xds.CLUSTER, endpoints.unit, xds.cluster(endpoints.unit))
        except UserError as error:
            self._refuse(endpoints, error.message)

    def _refuse(self, endpoints: Endpoints, why: str) -> None:
        self._refused[endpoints.unit] = (endpoints, why)
        before = self._in_force.get(endpoints.unit)
        if before is not None and before != endpoints:
            self._told[before.unit] = before
            self._discovery.put(xds.ASSIGNMENT, before.unit, xds.assignment(before))
