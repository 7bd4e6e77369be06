"""Make before break: what Envoy is told now, so that it comes to the goal without losing a request on the way.

For each route: first the clusters and endpoints of its units, and when Envoy has acknowledged them its scopes, one per
public id; when these are acknowledged too the route is in force, and units that nothing names any more are forgotten.
A route that Envoy refuses is put back to the one in force. While a route that narrows who may call cannot be in force,
the one before it narrows too: to the new callers, or where these are what Envoy refuses, to nobody. Level-triggered:
`settle` may be called at any time, for any owner, and does what is next. The cost of a change does not grow with the
number of routes. No IO.
"""

import bisect
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from modelyard.base.errors import UserError
from modelyard.control.gateway.claims import Claims
from modelyard.control.gateway.latest import Latest
from modelyard.control.gateway.narrowing import CLOSED, is_closed, meanwhile, narrowing, shuts_out
from modelyard.control.gateway.shadows import Shadows
from modelyard.control.gateway.units import Discovery, Units
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_traffic


class _Refused(NamedTuple):
    """A goal that was refused, and why: it is not tried again until there is another one."""

    goal: Route
    message: str


class _Uses:
    """How often each unit is named. unused: those that were named, and are not any more."""

    def __init__(self) -> None:
        self.unused: set[str] = set()
        self._counts: dict[str, int] = {}

    def update(self, units: Iterable[str]) -> None:
        for unit in units:
            self._counts[unit] = self._counts.get(unit, 0) + 1
            self.unused.discard(unit)

    def subtract(self, units: Iterable[str]) -> None:
        for unit in units:
            self._counts[unit] -= 1
            if not self._counts[unit]:
                del self._counts[unit]
                self.unused.add(unit)


class _Routes(dict[Key, Route]):
    """Routes by owner, which count the units that they name."""

    def __init__(self, uses: _Uses) -> None:
        super().__init__()
        self._uses = uses

    def replace(self, owner: Key, route: Route | None) -> None:
        before = self.pop(owner, None)
        if route is not None:
            self[owner] = route
            self._uses.update(route.units)
        if before is not None:
            self._uses.subtract(before.units)


class Switch:
    """By owner: the goal, what was told (its scopes are in the table) and what is in force (Envoy acknowledged it).

    due: owners to settle, since something about them changed; first those whom fewer may call. version: of Modelyard,
    for `/v2`. secret: of units. shadows: follow what is in force. lists: whether the list of models is told from the
    beginning, and not only by `show_list`.
    """

    def __init__(
        self,
        discovery: Discovery,
        version: str,
        secret: UnitSecret = none,
        shadows: Shadows | None = None,
        *,
        lists: bool = True,
    ) -> None:
        self.due: dict[Key, None] = {}
        self._discovery = discovery
        self._version = version
        self._units = Units(discovery, secret)
        self._shadows = shadows
        self._uses = _Uses()
        self._goal = _Routes(self._uses)
        self._told = _Routes(self._uses)
        self._in_force = _Routes(self._uses)
        self._changing: dict[Key, set[Route]] = {}  # told something that Envoy may not have yet -> what it may have
        self._refused: dict[Key, _Refused] = {}
        self._published: Latest[Route] = Latest()
        self._is_aimed = False
        self._claims = Claims()
        self._contested: dict[Key, str] = {}
        self._seen: dict[Key, ObservedRoute] = {}
        self._by_id: dict[str, list[Key]] = {}  # who told a scope or waits for its end, the latest last
        self._by_unit: dict[str, set[Key]] = {}  # whose goal names it
        self._listed: list[str] = []  # sorted
        self._is_listed = True
        self._is_hidden = not lists
        for name in xds.SERVER_SCOPES:
            if lists or name != xds.INDEX:
                discovery.put(xds.SCOPE, name, xds.scope(name, None, (), version))

    def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """Take a new goal; endpoints of units that Envoy knows are told at once, all else is left to `settle`."""
        self._is_aimed = True
        fresh, gone = self._published.take(routes)
        goal: dict[Key, Route | None] = dict.fromkeys(each.owner for each in gone)
        goal.update((each.owner, each) for each in fresh)
        urgent: dict[Key, None] = {}
        for owner, new in goal.items():
            old = self._goal.get(owner)
            if new != old:
                self._aim(owner, old, new)
                (urgent if shuts_out(self._told.get(owner), new) else self.due)[owner] = None
        if urgent:
            self.due = urgent | {owner: None for owner in self.due if owner not in urgent}
        contest = self._claims.contested(self._goal, self._told)
        for owner in contest.keys() | self._contested.keys():
            if contest.get(owner) != self._contested.get(owner):
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
        why, told, goal = self._why_not(owner), self._told.get(owner), self._goal.get(owner)
        if why and is_closed(told, goal):
            why += f"; {CLOSED}"
        return ObservedRoute(acknowledged=acknowledged, rejected=why)

    def settle(self, owner: Key) -> bool:
        """Do what is next for one owner. Returns whether what is observed of it has changed."""
        self.due.pop(owner, None)
        goal = self._goal.get(owner)
        self._take_answers(owner)
        if goal is None:
            self._refused.pop(owner, None)
            self._tell(owner, None)
        elif goal != self._told.get(owner):
            if not self._why_not(owner) and self._reachable(goal):
                self._try(owner, goal, goal)
            if shuts_out(self._told.get(owner), goal):
                self._fall_back(owner, goal)
        self._take_answers(owner)
        if self._shadows is not None:
            self._shadows.follow(owner, self._in_force.get(owner), self._units.addresses)
        return self._has_news(owner)

    def is_told(self) -> bool:
        """Whether there is a goal, and everything about it that can be in force is."""
        is_aimed = self._is_aimed and not self.due and not self._changing
        return is_aimed and all(
            self._in_force.get(owner) == goal or self._why_not(owner) for owner, goal in self._goal.items()
        )

    def wants(self, public_id: str) -> bool:
        """Whether the goal has a route of that id."""
        return not self._is_aimed or self._claims.has(public_id)

    def is_said(self) -> bool:
        """Whether there is a goal, and everything about it that Envoy can take was told."""
        return self._is_aimed and all(
            self._told.get(owner) == goal or self._why_not(owner) for owner, goal in self._goal.items()
        )

    def sweep(self) -> None:
        """Forget units that nothing names any more, and tell the list of models."""
        if self._shadows is not None:
            self._shadows.settle()
        while self._uses.unused:
            self._units.forget(self._uses.unused.pop())
        # One list after the other: while a thousand routes come, a thousand lists would be rendered.
        if not self._is_listed and not self._is_hidden and self._discovery.holds(xds.SCOPE, xds.INDEX):
            self._tell_list()

    def show_list(self) -> None:
        """All models are known: who is told a longer list by somebody else need not wait any more."""
        if self._is_hidden:
            self._is_hidden = False
            self._tell_list()

    def _tell_list(self) -> None:
        self._is_listed = True
        index = xds.scope(xds.INDEX, None, tuple(self._listed), self._version)
        self._discovery.put(xds.SCOPE, xds.INDEX, index)

    def _aim(self, owner: Key, old: Route | None, new: Route | None) -> None:
        for unit in old.units if old else ():
            self._by_unit[unit].discard(owner)
            if not self._by_unit[unit]:
                del self._by_unit[unit]
        for unit in new.units if new else ():
            self._by_unit.setdefault(unit, set()).add(owner)
        for unit in set(old.units if old else ()) - set(new.units if new else ()):
            self._units.leave(unit, owner)
        self._claims.replace(owner, _ids(old), _ids(new))
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
        why = next((why for unit in goal.units if (why := self._units.refusal(unit))), "")
        if not why and owner not in self._changing and goal == self._told.get(owner):
            # Of several Envoys one that came later does not take what is in force at the others.
            why = next((w for each in goal.ids if (w := self._discovery.refusal(xds.SCOPE, each))), "")
        return why

    def _reachable(self, goal: Route) -> bool:
        """Tell every unit of a goal; whether Envoy has acknowledged them all."""
        units, demands = goal.units, xds_traffic.demands(goal)
        told = [self._units.tell(unit, goal.owner, demands) for unit in units]
        return all(told) and all(self._units.known(unit) for unit in units)

    def _take_answers(self, owner: Key) -> None:
        told, in_force = self._told.get(owner), self._in_force.get(owner)
        if owner not in self._changing:
            return
        why = next((w for each in _ids(told) if (w := self._discovery.refusal(xds.SCOPE, each))), "")
        if told is not None and why:
            goal = self._goal.get(owner)
            # What is in force was acknowledged once, so the goal's callers are the reason.
            is_narrowed = goal is not None and in_force is not None and told == narrowing(in_force, goal)
            self._refused[owner] = _Refused(goal if goal and is_narrowed else told, why)
            if goal is not None and told != in_force:
                self._fall_back(owner, goal, told)
            else:
                self._tell(owner, in_force)
            told = self._told.get(owner)
        former = {each for route in self._changing[owner] for each in route.ids}
        if all(self._discovery.holds(xds.SCOPE, each) for each in former.union(_ids(told))):
            for route in self._changing.pop(owner):
                self._uses.subtract(route.units)
            self._in_force.replace(owner, told)
            for each in former.difference(_ids(told)):
                self._leave(owner, each)

    def _fall_back(self, owner: Key, goal: Route, refused: Route | None = None) -> None:
        """Tell what is to hold while the goal cannot. refused: what was told, and is not to be told again."""
        former = self._refused.get(owner)
        is_refused = former is not None and former.goal == goal
        choices = meanwhile(self._in_force.get(owner), goal, refused=is_refused)
        if not any(self._try(owner, each, goal) for each in choices if each != refused):
            self._tell(owner, None)

    def _try(self, owner: Key, route: Route, goal: Route) -> bool:
        """Tell a route for the sake of a goal; whether it can be said to Envoy."""
        try:
            self._tell(owner, route)
        except UserError as error:
            self._refused[owner] = _Refused(goal, error.message)
            return False
        return True

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
            self._uses.update(before.units)
        self._told.replace(owner, route)
        self._list(_listing(before), _listing(route))

    def _list(self, before: str, now: str) -> None:
        if before == now:
            return
        if before:
            del self._listed[bisect.bisect_left(self._listed, before)]
        if now:
            bisect.insort(self._listed, now)
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


def _listing(route: Route | None) -> str:
    """How a route is called in the list of models, which everybody may read, or "" where it is not in it."""
    is_open = route is not None and route.access.authentication == "none" and not route.internal
    return route.ids[0] if route and is_open else ""
