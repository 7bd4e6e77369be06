"""The clusters and endpoints that Envoy is told about: those that a route names, and no others."""

from typing import Any, Protocol

from modelyard.base.errors import UserError
from modelyard.control.gateway.latest import Latest
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_traffic
from modelyard.control.render.xds_traffic import Demands


class Discovery(Protocol):
    """What `Ads` offers: a table that is sent to Envoy, and Envoy's answers."""

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None: ...

    def remove(self, kind: str, name: str) -> None: ...

    def holds(self, kind: str, name: str) -> bool: ...

    def refusal(self, kind: str, name: str) -> str: ...


class Units:
    """Endpoints as published, and as told. A unit that is no longer published keeps its last endpoints while named."""

    def __init__(self, discovery: Discovery, secret: UnitSecret = none) -> None:
        self._discovery = discovery
        self._secret = secret
        self._latest: Latest[Endpoints] = Latest()
        self._published: dict[str, Endpoints] = {}
        self._told: dict[str, Endpoints] = {}
        self._in_force: dict[str, Endpoints] = {}
        self._refused: dict[str, tuple[Endpoints, str]] = {}
        self._demands: dict[str, Demands] = {}
        self._decides: dict[str, Key] = {}
        self._renewals: dict[str, int] = {}

    def publish(self, endpoints: tuple[Endpoints, ...]) -> set[str]:
        """Take new endpoints; those of units that Envoy knows go to it at once. Returns units that changed."""
        fresh, gone = self._latest.take(endpoints)
        changed = {each.unit: each for each in fresh if self._published.get(each.unit) != each}
        for each in gone:
            self._published.pop(each.unit, None)
        self._published.update((each.unit, each) for each in fresh)
        for unit in changed.keys() & self._told.keys():
            self._tell(changed[unit])
        return set(changed)

    def tell(self, unit: str, owner: Key, demands: Demands = xds_traffic.NONE) -> bool:
        """Make sure that Envoy is told about a unit, with these demands. False: nothing is known of it yet.

        Of several owners who name one unit, which no service does, the first decides until it leaves.
        """
        if self._decides.setdefault(unit, owner) != owner:
            demands = self._demands.get(unit, xds_traffic.NONE)
        changed = demands != self._demands.get(unit, xds_traffic.NONE)
        if unit in self._told and changed:
            self._demands[unit] = demands
            # Envoy 1.40 gives a cluster that it makes anew no endpoints that it has already: until they come again, or
            # 15 s have passed, it goes on with the cluster of before.
            self._renewals[unit] = self._renewals.get(unit, 0) + 1
            self._tell(self._told[unit])
        elif unit not in self._told and unit in self._published:
            self._demands[unit] = demands
            self._tell(self._published[unit])
        return unit in self._told

    def leave(self, unit: str, owner: Key) -> None:
        """An owner names it no more."""
        if self._decides.get(unit) == owner:
            del self._decides[unit]

    def known(self, unit: str) -> bool:
        """Whether Envoy acknowledged the cluster and its latest endpoints."""
        return (
            unit in self._told
            and self._told[unit] == self._published.get(unit, self._told[unit])
            and self._discovery.holds(xds.CLUSTER, unit)
            and self._discovery.holds(xds.ASSIGNMENT, unit)
        )

    def addresses(self, unit: str) -> tuple[str, ...]:
        """What was told last."""
        return self._told[unit].addresses if unit in self._told else ()

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
            self._demands.pop(unit, None)
            self._renewals.pop(unit, None)
            self._discovery.remove(xds.CLUSTER, unit)
            self._discovery.remove(xds.ASSIGNMENT, unit)

    def _tell(self, endpoints: Endpoints) -> None:
        self._told[endpoints.unit] = endpoints
        try:
            # Envoy asks for the endpoints when it gets the cluster.
            self._discovery.put(xds.ASSIGNMENT, endpoints.unit, self._assignment(endpoints))
            unit = endpoints.unit
            cluster = xds.cluster(unit, self._secret(unit), self._demands.get(unit, xds_traffic.NONE))
            self._discovery.put(xds.CLUSTER, unit, cluster)
        except UserError as error:
            self._refuse(endpoints, error.message)

    def _assignment(self, endpoints: Endpoints) -> dict[str, Any]:
        return xds.assignment(endpoints, self._renewals.get(endpoints.unit, 0))

    def _refuse(self, endpoints: Endpoints, why: str) -> None:
        self._refused[endpoints.unit] = (endpoints, why)
        before = self._in_force.get(endpoints.unit)
        if before is not None and before != endpoints:
            self._told[before.unit] = before
            self._discovery.put(xds.ASSIGNMENT, before.unit, self._assignment(before))
