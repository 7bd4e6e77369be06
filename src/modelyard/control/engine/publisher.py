"""Everything that the gateway must know, gathered from all owners and published when it changed."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import chain

import msgspec

from modelyard.base.errors import ModelyardError
from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.ir.access import Access
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.plan.diff import endpoints

log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0
_REST_SECONDS = 0.01
"""After a publication: what comes meanwhile is published together. Longer when that took long."""
_AT_ONE_GO = 500


class Publisher:
    """Collects routes; publishes them with the endpoints of everything that runs.

    Nothing is published before `open` was called: a control plane that has not yet looked at every object must not take
    routes away from a gateway that still serves them.
    access: who may call an owner's routes now. Whatever a route that is offered says, that holds.
    """

    def __init__(self, driver: Driver, gateway: Gateway, access: Callable[[Key], Access]) -> None:
        self._access = access
        self._driver = driver
        self._gateway = gateway
        self._routes: dict[Key, tuple[Route, ...]] = {}
        self._told: dict[Key, tuple[Route, ...]] = {}
        self._unsettled: dict[Key, tuple[Route, ...]] = {}
        self._endpoints: dict[Key, tuple[Endpoints, ...]] = {}
        self._stale: set[Key] = set()
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()
        self._last: tuple[tuple[Route, ...], tuple[Endpoints, ...]] | None = None

    def offer(self, owner: Key, routes: tuple[Route, ...]) -> None:
        """Replace an owner's routes."""
        if routes:
            routes = _granted(routes, self._access(owner))
            # Who gets to see all routes must find those that did not change to be the same objects.
            routes = self._routes[owner] if self._routes.get(owner) == routes else routes
            self._routes[owner] = routes
            former = self._unsettled.get(owner, ())
            self._unsettled[owner] = (*(each for each in former if each not in routes), *routes)
        elif owner not in self._routes and owner not in self._unsettled:
            return  # most kinds have none
        else:
            self._routes.pop(owner, None)
            self._unsettled.pop(owner, None)
        self.look_again(owner)

    def in_transit(self, owner: Key) -> tuple[Route, ...]:
        """All routes that may be in force by now, the latest last.

        What was offered counts from then on, and until a later offer is known to be in force, or refused: the gateway
        may acknowledge a route at any moment after it was told.
        """
        offered, seen = self._routes.get(owner, ()), self._gateway.observe(owner)
        answered = bool(seen.rejected) or (seen.acknowledged is not None and (seen.acknowledged,) == offered)
        if answered and offered == self._told.get(owner):
            self._unsettled[owner] = offered
        return self._unsettled.get(owner, ())

    def hold(self, owner: Key) -> None:
        """Nobody can tell what an owner's routes should be: those last offered stay, else those in force."""
        if owner not in self._routes:
            acknowledged = self._gateway.observe(owner).acknowledged
            self.offer(owner, (acknowledged,) if acknowledged else ())

    async def regrant(self, owners: Iterable[Key] | None = None) -> set[Key]:
        """Give routes the access that holds now, and publish them together. -> owners for whom it has changed.

        owners: whose access may have changed; None: anybody's.
        """
        changed: dict[Key, Access] = {}
        for count, owner in enumerate(tuple(self._routes) if owners is None else owners):
            if count % _AT_ONE_GO == 0:
                await asyncio.sleep(0)
            access = self._access(owner)
            if any(each.access != access for each in self._routes.get(owner, ())):
                changed[owner] = access
        for owner, access in changed.items():
            self._routes[owner] = _granted(self._routes[owner], access)
            # Which of those were in force with which access does not matter: they stand for the units that they name.
            self._unsettled[owner] = tuple(dict.fromkeys(_granted(self._unsettled.get(owner, ()), access)))
        if changed:
            self._changed.set()
        return set(changed)

    def look_again(self, owner: Key) -> None:
        """Its endpoints may have changed."""
        self._stale.add(owner)
        self._changed.set()

    def open(self) -> None:
        """Every object has been looked at once: from now on what is offered is everything."""
        for each in self._driver.observe().units:
            self._stale.add(each.unit.owner)
        self._opened.set()
        self._changed.set()

    def _refresh(self) -> None:
        """Look at the endpoints of those about whom something may have changed."""
        while self._stale:
            owner = self._stale.pop()
            found = endpoints(self._driver.observe(owner))
            if not found:
                self._endpoints.pop(owner, None)
            elif found != self._endpoints.get(owner):
                self._endpoints[owner] = found

    async def run(self) -> None:
        """Publish until cancelled. Changes that come together are published together."""
        await self._opened.wait()
        loop = asyncio.get_running_loop()
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = loop.time()
            self._refresh()
            goal = (
                tuple(chain.from_iterable(self._routes.values())),
                tuple(chain.from_iterable(self._endpoints.values())),
            )
            if goal == self._last:
                continue
            try:
                self._told = dict(self._routes)
                await self._gateway.publish(*goal)
            except ModelyardError as error:
                log.warning("the gateway could not be told: %s", error)
            except Exception:
                log.exception("the gateway could not be told: a defect of Modelyard; tried again later")
            else:
                self._last = goal
                await asyncio.sleep(max(_REST_SECONDS, 2 * (loop.time() - began)))
                continue
            await asyncio.sleep(_PAUSE_SECONDS)
            self._changed.set()


def _granted(routes: tuple[Route, ...], access: Access) -> tuple[Route, ...]:
    """The routes with this access; the same objects where they have it."""
    return tuple(each if each.access == access else msgspec.structs.replace(each, access=access) for each in routes)
