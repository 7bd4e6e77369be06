"""Everything that the gateway must know, gathered from all owners and published when it changed."""

import asyncio
import logging

from modelyard.base.errors import ModelyardError
from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.plan.diff import endpoints

log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0


class Publisher:
    """Collects routes; publishes them with the endpoints of everything that runs.

    Nothing is published before `open` was called: a control plane that has not yet looked at every object must not take
    routes away from a gateway that still serves them.
    """

    def __init__(self, driver: Driver, gateway: Gateway) -> None:
        self._driver = driver
        self._gateway = gateway
        self._routes: dict[Key, tuple[Route, ...]] = {}
        self._told: dict[Key, tuple[Route, ...]] = {}
        self._unsettled: dict[Key, tuple[Route, ...]] = {}
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()
        self._last: tuple[tuple[Route, ...], tuple[Endpoints, ...]] | None = None

    def offer(self, owner: Key, routes: tuple[Route, ...]) -> None:
        """Replace an owner's routes."""
        if routes:
            self._routes[owner] = routes
            former = self._unsettled.get(owner, ())
            self._unsettled[owner] = (*(each for each in former if each not in routes), *routes)
        elif owner not in self._routes and owner not in self._unsettled:
            return  # most kinds have none
        else:
            self._routes.pop(owner, None)
            self._unsettled.pop(owner, None)
        self._changed.set()

    def in_transit(self, owner: Key) -> tuple[str, ...]:
        """Units of all routes that may be in force by now, the latest last.

        What was offered counts from then on, and until a later offer is known to be in force, or refused: the gateway
        may acknowledge a route at any moment after it was told.
        """
        offered, seen = self._routes.get(owner, ()), self._gateway.observe(owner)
        answered = bool(seen.rejected) or (seen.acknowledged is not None and (seen.acknowledged,) == offered)
        if answered and offered == self._told.get(owner):
            self._unsettled[owner] = offered
        return tuple(each.unit for route in self._unsettled.get(owner, ()) for each in route.backends)

    def hold(self, owner: Key) -> None:
        """Nobody can tell what an owner's routes should be: those last offered stay, else those in force."""
        if owner not in self._routes:
            acknowledged = self._gateway.observe(owner).acknowledged
            self.offer(owner, (acknowledged,) if acknowledged else ())

    def look_again(self) -> None:
        """Endpoints may have changed."""
        self._changed.set()

    def open(self) -> None:
        """Every object has been looked at once: from now on what is offered is everything."""
        self._opened.set()
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled. Changes that come together are published together."""
        await self._opened.wait()
        while True:
            await self._changed.wait()
            self._changed.clear()
            routes = tuple(route for owner in sorted(self._routes) for route in self._routes[owner])
            goal = (routes, endpoints(self._driver.observe()))
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
                continue
            await asyncio.sleep(_PAUSE_SECONDS)
            self._changed.set()
