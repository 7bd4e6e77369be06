"""The gateway's memory twin: the same contract without a proxy, for tests of everything that publishes routes."""

from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from modelyard.control.gateway.claims import Claims
from modelyard.control.gateway.hints import Hints
from modelyard.control.gateway.narrowing import CLOSED, is_closed, meanwhile
from modelyard.control.ir.access import Access
from modelyard.control.ir.admission import admits
from modelyard.control.ir.observed import Load, ObservedRoute
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key

_NO_CLAIMS: Mapping[str, Any] = {}


def weightless(route: Route) -> str:
    """What Envoy itself refuses about a route: backends that share nothing."""
    return "the weights of its backends add up to 0" if route.backends and _total(route) == 0 else ""


class MemoryGateway:
    """Acknowledges what is published: at once, or with `automatic=False` when `settle` is called.

    refuses: why a route is rejected, or "". Raises ValueError on what no caller may publish: two routes of one owner,
    a unit with two sets of endpoints, a route without ids, weights that add up to neither 0 nor 100.
    """

    def __init__(self, *, automatic: bool = True, refuses: Callable[[Route], str] = weightless) -> None:
        self._automatic = automatic
        self._refuses = refuses
        self._goal: dict[Key, Route] = {}
        self._claims = Claims()
        self._contested: dict[Key, str] = {}
        self._endpoints: dict[str, tuple[str, ...]] = {}
        self._observed: dict[Key, ObservedRoute] = {}
        self._hints = Hints()
        self._platform = Platform()
        self._load: dict[str, Load] = {}

    def configure(self, platform: Platform) -> None:
        """See `Gateway.configure`."""
        self._platform = platform

    async def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """See `Gateway.publish`."""
        goal = {route.owner: route for route in routes}
        units = {each.unit: each.addresses for each in endpoints}
        if len(goal) != len(routes) or len(units) != len(endpoints):
            raise ValueError("two routes of one owner, or two sets of endpoints of one unit, were published")
        for route in routes:
            if not route.ids or (route.backends and _total(route) not in (0, 100)):
                raise ValueError(f"the route of {route.owner} has no ids, or weights that do not add up to 100")
        for owner in self._goal.keys() | goal.keys():
            self._claims.replace(owner, _ids(self._goal.get(owner)), _ids(goal.get(owner)))
        self._goal = goal
        self._contested = self._claims.contested(goal, self._observed)
        kept = {unit: self._endpoints[unit] for unit in self._in_force() if unit in self._endpoints}
        self._endpoints = kept | units
        if self._automatic:
            self.settle()

    def settle(self) -> None:
        """Everything that was published reaches the proxies, and they answer."""
        for owner in sorted(self._goal.keys() | self._observed.keys()):
            now = self._next(owner)
            if now != self.observe(owner):
                self._observed[owner] = now
                self._hints.add(owner)
            if now == ObservedRoute():
                self._observed.pop(owner, None)
        used = self._in_force() | {unit for route in self._goal.values() for unit in route.units}
        self._endpoints = {unit: found for unit, found in self._endpoints.items() if unit in used}

    def observe(self, owner: Key) -> ObservedRoute:
        """See `Gateway.observe`."""
        return self._observed.get(owner, ObservedRoute())

    def load(self) -> Mapping[str, Load]:
        """See `Gateway.load`: requests are those of `ask`."""
        return MappingProxyType(self._load)

    def hints(self) -> AsyncIterator[Key]:
        """See `Gateway.hints`."""
        return self._hints.drain()

    def ask(self, public_id: str, issuer: str = "", claims: Mapping[str, Any] = _NO_CLAIMS) -> tuple[int, str]:
        """What one request meets: (200, a unit), (401, ""), (403, ""), (404, "") or (503, why).

        Of several units, the heaviest. issuer, claims: of the caller's token; that of no issuer is none. Requests are
        not counted, so that nobody meets a limit.
        """
        route = next((each for each in self._acknowledged() if public_id in each.ids), None)
        believed = issuer if any(each.name == issuer and each.keys for each in self._platform.issuers) else ""
        access = route.access if route else Access(authentication=self._platform.authentication)
        if not believed and not self._platform.anonymous:
            return 401, ""
        if not admits(access, believed, claims):
            return (403 if believed else 401), ""
        if route is None:
            return 404, ""
        if not route.backends:
            return 503, route.unavailable
        unit = max(route.backends, key=lambda each: each.weight).unit
        answers = bool(self._endpoints[unit])
        self._count(unit, answers=answers)
        return (200, unit) if answers else (503, f"no replica of {unit} is ready")

    def _count(self, unit: str, *, answers: bool) -> None:
        before = self._load.get(unit, Load(unit=unit))
        if answers:
            self._load[unit] = msgspec.structs.replace(before, answered=before.answered + 1, p50_seconds=0.0)
        else:
            self._load[unit] = msgspec.structs.replace(before, failed=before.failed + 1)

    def _next(self, owner: Key) -> ObservedRoute:
        """Make before break: a route whose units have no known endpoints yet leaves the old one in force."""
        before, goal = self.observe(owner), self._goal.get(owner)
        if goal is None:
            return ObservedRoute()
        refused = self._refuses(goal)
        why = self._contested.get(owner) or refused
        if not why and all(unit in self._endpoints for unit in goal.units):
            return ObservedRoute(acknowledged=goal)
        choices = meanwhile(before.acknowledged, goal, refused=bool(refused))
        kept = next((each for each in choices if not self._refuses(each)), None)
        if why and is_closed(kept, goal):
            why += f"; {CLOSED}"
        return ObservedRoute(acknowledged=kept, rejected=why)

    def _acknowledged(self) -> list[Route]:
        return [each.acknowledged for each in self._observed.values() if each.acknowledged]

    def _in_force(self) -> set[str]:
        return {unit for route in self._acknowledged() for unit in route.units}


def _ids(route: Route | None) -> tuple[str, ...]:
    return route.ids if route else ()


def _total(route: Route) -> int:
    return sum(each.weight for each in route.backends)
