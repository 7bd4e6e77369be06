"""Everything that the gateway must know, gathered from all owners and published when it changed."""

import asyncio

from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.plan.diff import endpoints


class Publisher:
    """Collects routes; publishes them with the endpoints of everything that runs.

    Nothing is published before `open` was called: a control plane that has not yet looked at every object must not take
    routes away from a gateway that still serves them.
    """

    def __init__(self, driver: Driver, gateway: Gateway) -> None:
        self._driver = driver
        self._gateway = gateway
        self._routes: dict[Key, tuple[Route, ...]] = {}
        self._opened = asyncio.Event()
        self._changed = asyncio.Event()
        self._last: tuple[tuple[Route, ...], tuple[Endpoints, ...]] | None = None

    def offer(self, owner: Key, routes: tuple[Route, ...]) -> None:
        """Replace an owner's routes."""
        if routes:
            self._routes[owner] = routes
        else:
            self._routes.pop(owner, None)
        self._changed.set()

    def look_again(self) -> None:
        """Endpoints may have changed."""
        self._changed.set()

    def open(self) -> None:
        """Every object has been looked at once: from now on what is offered is everything."""
        self._opened.set()

    async def run(self) -> None:
        """Publish until cancelled. Changes that come together are published together."""
        await self._opened.wait()
        while True:
            await self._changed.wait()
            self._changed.clear()
            routes = tuple(route for owner in sorted(self._routes) for route in self._routes[owner])
            goal = (routes, endpoints(self._driver.observe()))
            if goal != self._last:
                await self._gateway.publish(*goal)
                self._last = goal
