"""Make before break: what Envoy is told now, so that it comes to the goal without losing a request on the way.

For each route: first the clusters and endpoints of its units, and when Envoy has acknowledged them its scopes, one per
public id; when these are acknowledged too the route is in force, and units that nothing names any more are forgotten.
A route that Envoy refuses is put back to the one in force. Level-triggered: `settle` may be called at any time, for any
owner, and does what is next. The cost of a change does not grow with the number of routes. No IO.
"""

from collections import Counter
from collections.abc import Collection, Mapping
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


class _Routes(dict[Key, Route]):
    """Routes by owner, which count the units that they name."""

    def __init__(self, uses: Counter[str]) -> None:
        super().__init__()
        self._uses = uses

    def replace(self, owner: Key, route: Route | None) -> None:
        before = self.pop(owner, None)
        if route is not None:
            self[owner] = route
            self._uses.update(each.unit for each in route.backends)
        if before is not None:
            self._uses.subtract(each.unit for each in before.backends)


class Switch:
    """By owner: the goal, what was told (its scopes are in the table) and what is in force (Envoy acknowledged it).

    due: owners to settle, since something about them changed. version: of Modelyard, for `/v2`.
    """

    def __init__(self, discovery: Discovery, version: str) -> None:
        self.due: dict[Key, None] = {}
        self._discovery = discovery
        self._version = version
        self._units = Units(discovery)
        self._uses: Counter[str] = Counter()
        self._goal = _Routes(self._uses)
        self._told = _Routes(self._uses)
        self._in_force = _Routes(self._uses)
        self._changing: dict[Key, set[Route]] = {}  # told something that Envoy may not have yet -> what it may have
        self._refused: dict[Key, _Refused] = {}
        self._contested: dict[Key, str] = {}
        self._seen: dict[Key, ObservedRoute] = {}
        self._by_id: dict[str, list[Key]] = {}  # who told a scope or waits for its end, the latest last
        self._by_unit: dict[str, set[Key]] = {}  # whose goal names it
        self._is_listed = True
        for name in xds.SERVER_SCOPES:
            discovery.put(xds.SCOPE, name, xds.scope(name, None, (), version))

    def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """Take a new goal; endpoints of units that Envoy knows are told at once, all else is left to `settle`."""
        goal = {route.owner: route for route in routes}
        contest = contested(routes, self._told)
        for owner in goal.keys() | self._goal.keys():
            new, old = goal.get(owner), self._goal.get(owner)
            if new != old:
                self._aim(owner, old, new)
            if new != old or contest.get(owner) != self._contested.get(owner):
                self.due[owner] = None
        self._contested = contest
        self.answered(xds.ASSIGNMENT, self._units.publish(endpoints))

    def answered(self, kind: str, names: Collection[str] | None) -> None:
        """Envoy answered, or something became known, about these (None: about all): who waits for it is due."""
        by_name: Mapping[str, Collection[Key]] = self._by_id if kind == xds.SCOPE else self._by_unit
        for name in list(by_name) if names is None else names:
            if kind == xds.ASSIGNMENT:
                self._units.take_answer(name)
            self.due.update(dict.fromkeys(by_name.get(name, ())))

    def observe(self, owner: Key) -> ObservedRoute:
        """See `Gateway.observe`."""
        acknowledged = self._in_force.get(owner)
        if owner in self._changing and acknowledged == self._goal.get(owner):
            acknowledged = None  # Envoy was told something else, and then this again: it may be in between
        return ObservedRoute(acknowledged=acknowledged, rejected=self._why_not(owner))

    def settle(self, owner: Key) -> bool:
        """Do what is next for one owner. Returns whether what is observed of it has changed."""
        self.due.pop(owner, None)
        goal = self._goal.get(owner)
        self._take_answers(owner)
        if goal is None:
            self._refused.pop(owner, None)
            self._tell(owner, None)
        elif goal != self._told.get(owner) and not self._why_not(owner) and self._reachable(goal):
            try:
                self._tell(owner, goal)
            except UserError as error:
                self._refused[owner] = _Refused(goal, error.message)
        self._take_answers(owner)
        return self._has_news(owner)

    def sweep(self) -> None:
        """Forget units that nothing names any more, and tell the list of models."""
        unused = [unit for unit, uses in self._uses.items() if uses == 0] if 0 in self._uses.values() else []
        for unit in unused:
            del self._uses[unit]
            self._units.forget(unit)
        # One list after the other: while a thousand routes come, a thousand lists would be rendered.
        if not self._is_listed and self._discovery.holds(xds.SCOPE, xds.INDEX):
            self._is_listed = True
            index = tuple(sorted(route.ids[0] for route in self._told.values()))
            self._discovery.put(xds.SCOPE, xds.INDEX, xds.scope(xds.INDEX, None, index, self._version))

    def _aim(self, owner: Key, old: Route | None, new: Route | None) -> None:
        for each in old.backends if old else ():
            self._by_unit[each.unit].discard(owner)
            if not self._by_unit[each.unit]:
                del self._by_unit[each.unit]
        for each in new.backends if new else ():
            self._by_unit.setdefault(each.unit, set()).add(owner)
        self._goal.replace(owner, new)

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
        if owner not in self._changing:
            return
        why = next((w for each in _ids(told) if (w := self._discovery.refusal(xds.SCOPE, each))), "")
        if told is not None and why:
            self._refused[owner] = _Refused(told, why)
            self._tell(owner, in_force)
            told = in_force
        former = {each for route in self._changing[owner] for each in route.ids}
        if all(self._discovery.holds(xds.SCOPE, each) for each in former.union(_ids(told))):
            for route in self._changing.pop(owner):
                self._uses.subtract(each.unit for each in route.backends)
            self._in_force.replace(owner, told)
            for each in former.difference(_ids(told)):
                self._leave(owner, each)

    def _tell(self, owner: Key, route: Route | None) -> None:
        """Put a route's scopes into the table, or take them out. Raises UserError, changing nothing."""
        before = self._told.get(owner)
        if before == route:
            return
        for each in _ids(route):
            self._discovery.put(xds.SCOPE, each, xds.scope(each, route))
            self._leave(owner, each)
            self._by_id.setdefault(each, []).append(owner)
        for each in set(_ids(before)) - set(_ids(route)):
            if self._by_id[each][-1] != owner:
                continue  # another route has taken it over
            if each in xds.SERVER_SCOPES:
                self._discovery.put(xds.SCOPE, each, xds.scope(each, None))
            else:
                self._discovery.remove(xds.SCOPE, each)
        former = self._changing.setdefault(owner, set())
        if before is not None and before not in former:
            former.add(before)
            self._uses.update(each.unit for each in before.backends)
        self._told.replace(owner, route)
        self._is_listed = False

    def _leave(self, owner: Key, public_id: str) -> None:
        """An owner waits for nothing about an id any more."""
        owners = self._by_id.get(public_id, [])
        if owner in owners:
            owners.remove(owner)
        if not owners:
            self._by_id.pop(public_id, None)

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
