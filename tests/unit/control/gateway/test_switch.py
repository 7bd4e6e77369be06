"""Make before break, whatever is published and in whatever order Envoy answers."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelyard.base.errors import UserError
from modelyard.control.gateway.switch import Switch
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.route import Backend, Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.render import xds

OWNERS = [Key(kind="ModelService", namespace="default", name=name) for name in ("a", "live", "c")]
UNITS = ["u1", "u2", "u3"]


class Envoy:
    """A table whose changes Envoy takes one by one, when told to; it refuses weights of 0 and port 0."""

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
        elif '"weight": 0' in body or '"port_value": "0"' in body:
            self.refused[key] = body
        else:
            self.has[key] = body

    def units(self, kind: str) -> set[str]:
        return {name for each, name in self.has if each == kind}


def route(owner: Key, units: list[str], *, weight: int = 100, timeout: float = 60.0) -> Route:
    backends = tuple(Backend(unit=unit, weight=weight // len(units)) for unit in units)
    return Route(owner=owner, ids=(f"{owner.name}.default", owner.name), backends=backends, timeout_seconds=timeout)


ROUTES = st.builds(
    route,
    st.sampled_from(OWNERS),
    st.lists(st.sampled_from(UNITS), max_size=2, unique=True),
    weight=st.sampled_from([100, 100, 100, 0]),
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

    def teardown(self) -> None:
        while pending := self.envoy.pending():
            self.answer_all(pending)
        good = {each.unit for each in self.endpoints if each.addresses == ("unix:/a",)}
        goal = {each.owner: each for each in self.routes}
        for owner in OWNERS:
            seen, wanted = self.switch.observe(owner), goal.get(owner)
            if wanted is None:
                assert seen == ObservedRoute()
            elif wanted.backends and any(each.weight == 0 for each in wanted.backends):
                assert seen.acknowledged != wanted
            elif all(each.unit in good for each in wanted.backends):
                assert seen == ObservedRoute(acknowledged=wanted)
        self.switch.publish((), ())
        self.settle()
        while pending := self.envoy.pending():
            self.answer_all(pending)
        assert self.envoy.units(xds.CLUSTER) == set()
        assert self.envoy.units(xds.SCOPE) == set(xds.SERVER_SCOPES)


def _units_in(scope: str) -> set[str]:
    found: set[str] = set()
    for entry in json.loads(scope)["route_configuration"]["virtual_hosts"][0]["routes"]:
        target = entry.get("route", {})
        found |= {target["cluster"]} if "cluster" in target else set()
        found |= {each["name"] for each in target.get("weighted_clusters", {}).get("clusters", [])}
    return found - {xds.CONTROL}  # there from the start


TestSwitching = Switching.TestCase
TestSwitching.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


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
