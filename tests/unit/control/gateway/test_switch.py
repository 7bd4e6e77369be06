"""Make before break, and nobody admitted too many, whatever is published and in whatever order Envoy answers."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from modelyard.base.errors import UserError
from modelyard.control.gateway.narrowing import shuts_out
from modelyard.control.gateway.switch import Switch
from modelyard.control.ir.access import OPEN, Access, Authentication, Caller, Claim
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.route import Backend, Endpoints, Mirror, Route, Version
from modelyard.control.ir.values import Key
from modelyard.control.render import xds

OWNERS = [Key(kind="ModelService", namespace="default", name=name) for name in ("a", "live", "c")]
UNITS = ["u1", "u2", "u3"]


class Envoy:
    """A table whose changes Envoy takes one by one, when told to; it refuses weights of 0, port 0 and one caller."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], str] = {}
        self.has: dict[tuple[str, str], str] = {}
        self.refused: dict[tuple[str, str], str] = {}

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        text = json.dumps(body)
        if "unsayable" in text:
            raise UserError("it cannot be said")
        self.table[kind, name] = text

    def remove(self, kind: str, name: str) -> None:
        self.table.pop((kind, name), None)

    def holds(self, kind: str, name: str) -> bool:
        return self.has.get((kind, name)) == self.table.get((kind, name))

    def refusal(self, kind: str, name: str) -> str:
        refused = self.refused.get((kind, name))
        return "bad" if refused is not None and refused == self.table.get((kind, name)) else ""

    def pending(self) -> list[tuple[str, str]]:
        return [
            key
            for key in sorted(self.table.keys() | self.has.keys())
            if self.has.get(key) != self.table.get(key) and not self.refusal(*key)
        ]

    def take(self, key: tuple[str, str]) -> None:
        body = self.table.get(key)
        if body is None:
            self.has.pop(key, None)
        elif '"weight": 0' in body or '"port_value": "0"' in body or '"refused"' in body:
            self.refused[key] = body
        else:
            self.has[key] = body

    def units(self, kind: str) -> set[str]:
        return {name for each, name in self.has if each == kind}


def access(*subjects: str, authentication: Authentication = "required") -> Access:
    callers = tuple(Caller(issuer="corp", claims=(Claim(path=("sub",), value=each),)) for each in sorted(subjects))
    return Access(authentication=authentication, callers=callers)


def route(owner: Key, units: list[str], *, weight: int = 100, timeout: float = 60.0, access: Access = OPEN) -> Route:
    backends = tuple(Backend(unit=unit, weight=weight // len(units)) for unit in units)
    ids = (f"{owner.name}.default", owner.name)
    return Route(owner=owner, ids=ids, backends=backends, timeout_seconds=timeout, access=access)


ACCESSES = st.sampled_from(
    [OPEN, Access(), access("ana"), access("ana", "bob"), access("bob"), access("refused"), access("ana", "refused")]
)


def steered(base: Route, mirror: str, tagged: str, sticky: bool, most: int) -> Route:
    """The same with copies to one unit, an address of its own for another, and bounds, which clusters have."""
    return replace(
        base,
        mirror=Mirror(unit=mirror) if mirror else None,
        versions=(Version(name="canary", unit=tagged, number="2"),) if tagged else (),
        sticky_header="x-user" if sticky else "",
        max_concurrency=most,
    )


PLAIN_ROUTES = st.builds(
    route,
    st.sampled_from(OWNERS),
    st.lists(st.sampled_from(UNITS), max_size=2, unique=True),
    weight=st.sampled_from([100, 100, 100, 0]),
    access=ACCESSES,
)
ROUTES = st.one_of(
    PLAIN_ROUTES,
    st.builds(
        steered,
        PLAIN_ROUTES,
        st.sampled_from(["", *UNITS]),
        st.sampled_from(["", *UNITS]),
        st.booleans(),
        st.sampled_from([0, 0, 5]),
    ),
)
ENDPOINTS = st.builds(
    Endpoints,
    unit=st.sampled_from(UNITS),
    addresses=st.sampled_from([(), ("unix:/a",), ("unix:/b",), ("127.0.0.1:0",)]),
)


class Switching(RuleBasedStateMachine):
    """Publications, and an Envoy that answers in any order and may start anew."""

    @initialize()
    def begin(self) -> None:
        self.envoy = Envoy()
        self.switch = Switch(self.envoy, "1.2.3")
        self.routes: tuple[Route, ...] = ()
        self.endpoints: tuple[Endpoints, ...] = ()
        self.restart()

    def settle(self, *answered: tuple[str, str]) -> None:
        for kind, name in answered:
            self.switch.answered(kind, [name])
        for owner in list(self.switch.due):
            self.switch.settle(owner)
        self.switch.sweep()

    @rule(
        routes=st.lists(ROUTES, max_size=3, unique_by=lambda each: each.owner),
        endpoints=st.lists(ENDPOINTS, max_size=3, unique_by=lambda each: each.unit),
    )
    def publish(self, routes: list[Route], endpoints: list[Endpoints]) -> None:
        self.routes, self.endpoints = tuple(routes), tuple(endpoints)
        self.switch.publish(self.routes, self.endpoints)
        self.settle()

    @rule(choice=st.integers(0, 50))
    def answer(self, choice: int) -> None:
        pending = self.envoy.pending()
        if pending:
            key = pending[choice % len(pending)]
            self.envoy.take(key)
            self.settle(key)

    @rule()
    def restart(self) -> None:
        """A new Envoy takes everything in the order of types before it serves."""
        self.envoy.has.clear()
        self.envoy.refused.clear()
        for kind in (xds.CLUSTER, xds.ASSIGNMENT, xds.SCOPE):
            self.switch.answered(kind, None)
        self.settle()
        while pending := self.envoy.pending():
            self.answer_all(pending)

    def answer_all(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            self.envoy.take(key)
            self.settle(key)

    @invariant()
    def no_scope_names_a_unit_that_envoy_does_not_know(self) -> None:
        known = self.envoy.units(xds.CLUSTER) & self.envoy.units(xds.ASSIGNMENT)
        for (kind, name), body in self.envoy.has.items():
            if kind == xds.SCOPE:
                assert _units_in(body) <= known, name

    @invariant()
    def a_goal_that_is_acknowledged_is_what_envoy_has(self) -> None:
        for route in self.routes:
            if self.switch.observe(route.owner).acknowledged == route:
                for each in route.ids:
                    assert self.envoy.has[xds.SCOPE, each] == json.dumps(xds.scope(each, route))

    @invariant()
    def at_rest_nobody_may_call_whom_the_goal_shuts_out(self) -> None:
        goal = {each.owner: each for each in self.routes}
        if self.envoy.pending():
            return
        for owner in OWNERS:
            now = self.switch.observe(owner).acknowledged
            assert not shuts_out(now, goal.get(owner))
            for each in now.ids if now else ():
                assert self.envoy.has[xds.SCOPE, each] == json.dumps(xds.scope(each, now))
            told = {name for kind, name in self.envoy.has if kind == xds.SCOPE and name in _names(owner)}
            assert told - set(xds.SERVER_SCOPES) <= set(now.ids if now else ())

    def teardown(self) -> None:
        while pending := self.envoy.pending():
            self.answer_all(pending)
        self.at_rest_nobody_may_call_whom_the_goal_shuts_out()
        good = {each.unit for each in self.endpoints if each.addresses == ("unix:/a",)}
        goal = {each.owner: each for each in self.routes}
        for owner in OWNERS:
            seen, wanted = self.switch.observe(owner), goal.get(owner)
            if wanted is None:
                assert seen == ObservedRoute()
            elif any(each.weight == 0 for each in wanted.backends) or "refused" in str(wanted.access):
                assert seen.acknowledged != wanted
            elif all(unit in good for unit in wanted.units):
                assert seen == ObservedRoute(acknowledged=wanted)
        self.switch.publish((), ())
        self.settle()
        while pending := self.envoy.pending():
            self.answer_all(pending)
        assert self.envoy.units(xds.CLUSTER) == set()
        assert self.envoy.units(xds.SCOPE) == set(xds.SERVER_SCOPES)


def _names(owner: Key) -> set[str]:
    return {f"{owner.name}.default", owner.name}


def _units_in(scope: str) -> set[str]:
    found: set[str] = set()
    for entry in json.loads(scope)["route_configuration"]["virtual_hosts"][0]["routes"]:
        target = entry.get("route", {})
        found |= {target["cluster"]} if "cluster" in target else set()
        found |= {each["name"] for each in target.get("weighted_clusters", {}).get("clusters", [])}
        found |= {each["cluster"] for each in target.get("request_mirror_policies", [])}
    return found - {xds.CONTROL}  # there from the start


TestSwitching = Switching.TestCase
TestSwitching.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


STEPS = st.tuples(
    st.builds(
        route,
        st.just(OWNERS[0]),
        st.sampled_from([[], ["u1"], ["u1"], ["never published"]]),
        weight=st.sampled_from([100, 100, 0]),
        access=ACCESSES,
    ),
    st.integers(0, 3),
    st.booleans(),
)


@given(st.lists(STEPS, min_size=2, max_size=6))
def test_nobody_may_call_whom_the_latest_goal_shuts_out(steps: list[tuple[Route, int, bool]]) -> None:
    envoy = Envoy()
    switch = Switch(envoy, "1.2.3")
    for goal, answers, is_first_answered in steps:
        switch.publish((goal,), (Endpoints(unit="u1", addresses=("unix:/a",)),))
        switch.settle(OWNERS[0])
        for _ in range(answers):
            take(envoy, switch, 0 if is_first_answered else -1)
    for _ in range(100):
        if envoy.pending():
            take(envoy, switch, 0)
    assert not envoy.pending(), "Envoy is told the same again and again"
    goal, seen = steps[-1][0], switch.observe(OWNERS[0])
    assert not shuts_out(seen.acknowledged, goal)
    for each in goal.ids:
        told = json.dumps(xds.scope(each, seen.acknowledged)) if seen.acknowledged else None
        assert envoy.has.get((xds.SCOPE, each)) == told
    if "refused" not in str(goal.access) and all(b.weight and b.unit == "u1" for b in goal.backends):
        assert seen == ObservedRoute(acknowledged=goal)


def take(envoy: Envoy, switch: Switch, place: int) -> None:
    """Envoy answers about one thing."""
    if pending := envoy.pending():
        envoy.take(pending[place])
        switch.answered(pending[place][0], [pending[place][1]])
        for owner in list(switch.due):
            switch.settle(owner)


def after(*goals: Route) -> tuple[Envoy, Switch]:
    """Once Envoy has answered about each of them, one after the other."""
    envoy = Envoy()
    switch = Switch(envoy, "1.2.3")
    for goal in goals:
        switch.publish((goal,), (Endpoints(unit="u1", addresses=("unix:/a",)),))
        switch.settle(goal.owner)
        for _ in range(20):
            take(envoy, switch, 0)
        assert not envoy.pending()
    return envoy, switch


def test_callers_that_envoy_refuses_leave_nobody_who_may_call() -> None:
    first = route(OWNERS[0], ["u1"], access=access("ana", "bob"))
    _, switch = after(first, route(OWNERS[0], ["u1"], access=access("ana", "refused")))
    seen = switch.observe(OWNERS[0])
    assert seen.acknowledged == route(OWNERS[0], ["u1"], access=Access())
    assert seen.rejected == "bad; until that is mended nobody may call"


def test_fewer_callers_do_not_wait_for_units_and_where_they_are_refused_nobody_may_call() -> None:
    first = route(OWNERS[0], ["u1"], access=access("ana", "bob"))
    _, switch = after(first, route(OWNERS[0], ["u2"], access=access("bob")))
    assert switch.observe(OWNERS[0]).acknowledged == route(OWNERS[0], ["u1"], access=access("bob"))
    _, switch = after(first, route(OWNERS[0], ["u2"], access=access("refused")))
    assert switch.observe(OWNERS[0]).acknowledged == route(OWNERS[0], ["u1"], access=Access())


def test_owners_whom_fewer_may_call_come_first() -> None:
    routes = [route(each, [], access=access("ana", "bob")) for each in OWNERS]
    envoy = Envoy()
    switch = Switch(envoy, "1.2.3")
    switch.publish(tuple(routes), ())
    assert list(switch.due) == OWNERS
    for owner in OWNERS:
        switch.settle(owner)
    wide, narrow = (route(OWNERS[1], [], access=each) for each in (access("ana", "bob", "cy"), access("ana")))
    switch.publish((routes[0], wide, routes[2]), ())
    switch.publish((routes[0], wide, route(OWNERS[2], [], access=access("bob"))), ())
    assert list(switch.due) == [OWNERS[2], OWNERS[1]]
    switch.publish((narrow,), ())
    assert set(list(switch.due)[:3]) == set(OWNERS)


def test_the_list_of_models_has_only_what_everybody_may_call() -> None:
    envoy, switch = after(route(OWNERS[0], [], access=access("ana")), route(OWNERS[0], []))
    assert "a.default" in _index(envoy, switch)
    envoy, switch = after(route(OWNERS[0], []), route(OWNERS[0], [], access=Access(authentication="optional")))
    assert "a.default" not in _index(envoy, switch)
    envoy, switch = after(replace(route(OWNERS[0], []), internal=True))
    assert "a.default" not in _index(envoy, switch)


def _index(envoy: Envoy, switch: Switch) -> str:
    for _ in range(3):
        switch.sweep()
        take(envoy, switch, 0)
    return envoy.has[xds.SCOPE, xds.INDEX]


def test_what_cannot_be_said_to_envoy_is_rejected_and_mended_by_the_next_goal() -> None:
    envoy = Envoy()
    switch = Switch(envoy, "1.2.3")
    bad = Route(owner=OWNERS[0], ids=("unsayable",), unavailable="why")
    switch.publish((bad,), ())
    assert switch.settle(OWNERS[0])
    assert switch.observe(OWNERS[0]) == ObservedRoute(rejected="it cannot be said")
    switch.publish((route(OWNERS[0], []),), ())
    assert switch.settle(OWNERS[0])
    for key in envoy.pending():
        envoy.take(key)
    switch.settle(OWNERS[0])
    assert switch.observe(OWNERS[0]) == ObservedRoute(acknowledged=route(OWNERS[0], []))


def test_endpoints_that_envoy_refuses_are_told_to_the_routes_that_need_them() -> None:
    envoy = Envoy()
    switch = Switch(envoy, "1.2.3")
    switch.publish((route(OWNERS[0], ["u1"]),), (Endpoints(unit="u1", addresses=("127.0.0.1:0",)),))
    switch.settle(OWNERS[0])
    for key in envoy.pending():
        envoy.take(key)
        switch.answered(key[0], [key[1]])
    assert list(switch.due) == [OWNERS[0]]
    switch.settle(OWNERS[0])
    assert switch.observe(OWNERS[0]) == ObservedRoute(rejected="bad")
