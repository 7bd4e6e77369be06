"""The units that may ask those whose answers callers get, as Envoy is told: while routes in force say so. No IO."""

import logging
from collections.abc import Callable

from modelyard.base.errors import UserError
from modelyard.control.gateway.units import Discovery
from modelyard.control.ir.route import Route
from modelyard.control.ir.unit_secret import UnitSecret
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_shadow
from modelyard.control.render.xds_shadow import Asking

_log = logging.getLogger(__name__)

Addresses = Callable[[str], tuple[str, ...]]


class Shadows:
    """Level-triggered: `follow` is told what is in force for an owner. where: they ask, as of `xds_shadow.listener`."""

    def __init__(self, discovery: Discovery, secret: UnitSecret, where: str) -> None:
        self._discovery = discovery
        self._secret = secret
        self._where = where
        self._told: dict[Key, Asking] = {}
        self._listens = False
        self._refused = ""

    @property
    def units(self) -> frozenset[str]:
        """Those that may ask."""
        return frozenset(each.asks for each in self._told.values())

    def follow(self, owner: Key, route: Route | None, addresses: Addresses) -> None:
        """route: in force. addresses: of units."""
        asking = self._asking(owner, route, addresses)
        before = self._told.get(owner)
        if asking == before:
            return
        if asking is None:
            self._forget(self._told.pop(owner).name)
            return
        self._told[owner] = asking
        try:
            self._discovery.put(xds.CLUSTER, asking.name, xds_shadow.cluster(asking))
            self._discovery.put(xds.SCOPE, asking.name, xds_shadow.scope(asking))
        except UserError as error:  # addresses that are none; the route says so as well
            _log.warning("copies of requests for %s are not compared: %s", owner, error)
            self._forget(asking.name)

    def settle(self) -> None:
        """The listener is there while somebody may ask."""
        if bool(self._told) != self._listens:
            self._listens = bool(self._told)
            if self._listens:
                self._discovery.put(xds.LISTENER, xds_shadow.LISTENER_NAME, xds_shadow.listener(self._where))
            else:
                self._discovery.remove(xds.LISTENER, xds_shadow.LISTENER_NAME)
        why = self._discovery.refusal(xds.LISTENER, xds_shadow.LISTENER_NAME)
        if why and why != self._refused:
            _log.error("copies of requests are not compared, since Envoy does not listen for that: %s", why)
        self._refused = why

    def _forget(self, name: str) -> None:
        self._discovery.remove(xds.SCOPE, name)
        self._discovery.remove(xds.CLUSTER, name)

    def _asking(self, owner: Key, route: Route | None, addresses: Addresses) -> Asking | None:
        mirror = route.mirror if route else None
        if route is None or mirror is None or not mirror.compared_percent or not route.backends:
            return None
        secret = self._secret(mirror.unit)
        serving = max(route.backends, key=lambda each: each.weight).unit
        if not secret or serving == mirror.unit:
            return None
        return Asking(
            name=xds_shadow.name(owner),
            asks=mirror.unit,
            secret=secret,
            unit=serving,
            unit_secret=self._secret(serving),
            addresses=addresses(serving),
            ids=route.ids,
            timeout_seconds=route.timeout_seconds,
        )
