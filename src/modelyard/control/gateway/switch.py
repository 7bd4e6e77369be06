"""Make before break: what Envoy is told now, so that it comes to the goal without losing a request on the way.

For each route: first the clusters and endpoints of its units, and when Envoy has acknowledged them its scopes, one per
public id; when these are acknowledged too the route is in force, and units that nothing names any more are forgotten.
A route that Envoy refuses is put back to the one in force. Level-triggered: `settle` may be called at any time, for any
owner, and does what is next. No IO.
"""

from typing import NamedTuple

from modelyard.base.errors import UserError
from modelyard.control.gateway.claims import contested
from modelyard.control.gateway.units import Discovery, Units
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.render import xds


class _Refused(NamedTuple):
    """A goal that was refused, and why: it is not tried again until there is another one."""

    goal: Route
    message: str


class Switch:
    """By owner: the goal, what was told (its scopes are in the table) and what is in force (Envoy acknowledged it).

    unsettled: owners for whom there is something to do or to wait for. version: of Modelyard, for `/v2`.
    """

    def __init__(self, discovery: Discovery, version: str) -> None:
        self.unsettled: dict[Key, None] = {}
        self._discovery = discovery
        self._version = version
        self._units = Units(discovery)
        self._goal: dict[Key, Route] = {}
        self._told: dict[Key, Route] = {}
        self._in_force: dict[Key, Route] = {}
        self._refused: dict[Key, _Refused] = {}
        self._contested: dict[Key, str] = {}
        self._seen: dict[Key, ObservedRoute] = {}
        self._holders: dict[str, Key] = {}
        self._index: tuple[str, ...] = ()
        for name in xds.SERVER_SCOPES:
            discovery.put(xds.SCOPE, name, xds.scope(name, None, (), version))

    def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """Take a new goal; endpoints of units that Envoy knows are told at once, all else is left to `settle`."""
        goal = {route.owner: route for route in routes}
        contest = contested(routes, self._told)
        changed = self._units.publish(endpoints)
        for owner in goal.keys() | self._goal.keys():
            new, old = goal.get(owner), self._goal.get(owner)
            if new != old or contest.get(owner) != self._contested.get(owner) or _names(new, changed):
                self.unsettled[owner] = None
        self._goal, self._contested = goal, contest

    def observe(self, owner: Key) -> ObservedRoute:
        """See `Gateway.observe`."""
        return ObservedRoute(acknowledged=self._in_force.get(owner), rejected=self._why_not(owner))

    def settle(self, owner: Key) -> bool:
        """Do what is next for one owner. Returns whether what is observed of it has changed."""
        goal = self._goal.get(owner)
        self._take_answers(owner)
        if goal is None:
            self._tell(owner, None)
        elif goal != self._told.get(owner) and not self._why_not(owner) and self._reachable(goal):
            try:
                self._tell(owner, goal)
            except UserError as error:
                self._refused[owner] = _Refused(goal, error.message)
        self._take_answers(owner)
        if self._is_settled(owner, goal):
            self.unsettled.pop(owner, None)
        return self._has_news(owner)

    def sweep(self) -> None:
        """Forget units that nothing names any more, and tell the list of models."""
        routes = (*self._goal.values(), *self._told.values(), *self._in_force.values())
        self._units.keep({each.unit for route in routes for each in route.backends})
        index = tuple(sorted(route.ids[0] for route in self._told.values()))
        if index != self._index:
            self._index = index
            self._discovery.put(xds.SCOPE, xds.INDEX, xds.scope(xds.INDEX, None, index, self._version))

    def _why_not(self, owner: Key) -> str:
        """Why the goal cannot be in force, as far as that is known by now."""
        goal = self._goal.get(owner)
        if goal is None:
            return ""
        refused = self._refused.get(owner)
        if owner in self._contested:
            return self._contested[owner]
        if refused is not None and refused.goal == goal:
            return refused.message
        return next((why for each in goal.backends if (why := self._units.refusal(each.unit))), "")

    def _reachable(self, goal: Route) -> bool:
        """Tell every unit of a goal; whether Envoy has acknowledged them all."""
        told = [self._units.tell(each.unit) for each in goal.backends]
        return all(told) and all(self._units.known(each.unit) for each in goal.backends)

    def _take_answers(self, owner: Key) -> None:
        told, in_force = self._told.get(owner), self._in_force.get(owner)
        if told == in_force:
            return
        why = next((w for each in _ids(told) if (w := self._discovery.refusal(xds.SCOPE, each))), "")
        if told is not None and why:
            self._refused[owner] = _Refused(told, why)
            self._tell(owner, in_force)
        elif all(self._discovery.holds(xds.SCOPE, each) for each in {*_ids(told), *_ids(in_force)}):
            self._refused.pop(owner, None)
            if told is None:
                del self._in_force[owner]
            else:
                self._in_force[owner] = told

    def _tell(self, owner: Key, route: Route | None) -> None:
        """Put a route's scopes into the table, or take them out. Raises UserError, changing nothing."""
        before = self._told.get(owner)
        if before == route:
            return
        for each in _ids(route):
            self._discovery.put(xds.SCOPE, each, xds.scope(each, route))
            self._holders[each] = owner
        for each in set(_ids(before)) - set(_ids(route)):
            if self._holders.get(each) != owner:
                continue  # another route has taken it over
            del self._holders[each]
            if each in xds.SERVER_SCOPES:
                self._discovery.put(xds.SCOPE, each, xds.scope(each, None))
            else:
                self._discovery.remove(xds.SCOPE, each)
        if route is None:
            del self._told[owner]
        else:
            self._told[owner] = route

    def _is_settled(self, owner: Key, goal: Route | None) -> bool:
        told = self._told.get(owner)
        if told != self._in_force.get(owner):
            return False
        if goal is None:
            self._refused.pop(owner, None)
            return True
        answered = all(self._units.known(each.unit) or self._units.refusal(each.unit) for each in goal.backends)
        return bool(self._why_not(owner)) or (told == goal and answered)

    def _has_news(self, owner: Key) -> bool:
        now = self.observe(owner)
        if now == self._seen.get(owner, ObservedRoute()):
            return False
        if now == ObservedRoute():
            del self._seen[owner]
        else:
            self._seen[owner] = now
        return True


def _ids(route: Route | None) -> tuple[str, ...]:
    return route.ids if route else ()


def _names(route: Route | None, units: set[str]) -> bool:
    return route is not None and any(each.unit in units for each in route.backends)
