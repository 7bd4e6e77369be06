"""Who may ask whom, as Envoy is told."""

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from modelyard.base.errors import UserError
from modelyard.control.gateway import descriptors
from modelyard.control.gateway.shadows import Shadows
from modelyard.control.gateway.switch import Switch
from modelyard.control.ir.route import Backend, Endpoints, Mirror, Route
from modelyard.control.ir.unit_secret import none, unit_secret
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_shadow

OWNER = Key(kind="ModelService", namespace="default", name="iris")
OTHER = Key(kind="ModelService", namespace="default", name="rose")
ADDRESSES = {"one": ("unix:/run/one.sock",), "two": ("unix:/run/two.sock",)}
secret = partial(unit_secret, b"k" * 32)


class Discovery:
    """What Envoy was told."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], dict[str, Any]] = {}
        self.refused = ""

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        if "unsayable" in str(body):
            raise UserError("it cannot be said")
        descriptors.encode(kind, body)
        self.table[kind, name] = body

    def remove(self, kind: str, name: str) -> None:
        self.table.pop((kind, name), None)

    def holds(self, kind: str, name: str) -> bool:
        return (kind, name) in self.table

    def refusal(self, kind: str, name: str) -> str:
        return self.refused if (kind, name) in self.table else ""


def route(owner: Key = OWNER, compared: int = 10, shadow: str = "shadow", **weights: int) -> Route:
    backends = tuple(Backend(unit=unit, weight=weight) for unit, weight in (weights or {"one": 100}).items())
    mirror = Mirror(unit=shadow, percent=50, compared_percent=compared)
    return Route(owner=owner, ids=(f"{owner.name}.default", owner.name), backends=backends, mirror=mirror)


class World:
    def __init__(self, secrets: Any = secret) -> None:
        self.discovery = Discovery()
        self.addresses: dict[str, tuple[str, ...]] = dict(ADDRESSES)
        self.shadows = Shadows(self.discovery, secrets, "/run/shadow.sock")

    def follow(self, given: Route | None, owner: Key = OWNER) -> None:
        self.shadows.follow(owner, given, lambda unit: self.addresses.get(unit, ()))
        self.shadows.settle()

    @property
    def told(self) -> list[tuple[str, str]]:
        return sorted((kind.rpartition(".")[2], name) for kind, name in self.discovery.table)

    def asked(self, owner: Key = OWNER) -> tuple[str, list[str], str]:
        """The secret that opens the scope, what it leads to, and the secret that goes on."""
        name = xds_shadow.name(owner)
        found, cluster = self.discovery.table[xds.SCOPE, name], self.discovery.table[xds.CLUSTER, name]
        paths = [
            each["address"]["pipe"]["path"]
            for locality in cluster["load_assignment"]["endpoints"]
            for member in locality["lb_endpoints"]
            for each in (member["endpoint"],)
        ]
        (options,) = cluster["typed_extension_protocol_options"].values()
        (mutation, _) = options["http_filters"]
        header = mutation["typed_config"]["mutations"]["request_mutations"][0]["append"]["header"]
        return found["key"]["fragments"][0]["string_key"], paths, header["value"]


def test_the_shadow_asks_the_heaviest_of_those_that_serve() -> None:
    world = World()
    world.follow(route(one=20, two=80))
    assert world.asked() == (secret("shadow"), ["/run/two.sock"], secret("two"))
    world.follow(route(one=80, two=20))
    assert world.asked() == (secret("shadow"), ["/run/one.sock"], secret("one"))


def test_the_listener_is_there_while_somebody_may_ask() -> None:
    world = World()
    world.follow(None)
    assert world.told == []
    world.follow(route())
    world.follow(route(OTHER), OTHER)
    assert ("Listener", "shadow") in world.told
    world.follow(replace(route(), mirror=None))
    assert [name for _, name in world.told] == ["~shadow.default.rose", "shadow", "~shadow.default.rose"]
    world.follow(None, OTHER)
    assert world.told == []


@pytest.mark.parametrize(
    "given",
    [
        None,
        route(compared=0),
        replace(route(), mirror=None),
        replace(route(), backends=()),
        route(shadow="one"),
    ],
)
def test_whoever_has_nothing_to_compare_may_not_ask(given: Route | None) -> None:
    world = World()
    world.follow(route())
    world.follow(given)
    assert world.told == []


def test_without_secrets_nobody_may_ask() -> None:
    world = World(none)
    world.follow(route())
    assert world.told == []


def test_endpoints_that_move_are_followed() -> None:
    world = World()
    world.follow(route())
    world.addresses |= {"one": ("unix:/run/one-1.sock", "unix:/run/one-2.sock")}
    world.follow(route())
    assert world.asked()[1] == ["/run/one-1.sock", "/run/one-2.sock"]


def test_what_cannot_be_said_is_taken_back_and_said_later(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.follow(route())
    world.addresses["one"] = ("unix:/unsayable",)
    world.follow(route())
    assert [kind for kind, _ in world.told] == ["Listener"]
    assert "default/iris" in caplog.text
    assert secret("shadow") not in caplog.text
    world.addresses["one"] = ADDRESSES["one"]
    world.follow(route())
    assert world.asked()[1] == ["/run/one.sock"]


def test_a_listener_that_envoy_refuses_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.follow(route())
    world.discovery.refused = "cannot bind"
    world.shadows.settle()
    world.shadows.settle()
    assert caplog.text.count("cannot bind") == 1


def test_no_public_path_leads_to_the_scope_and_none_of_it_is_counted() -> None:
    world = World()
    world.follow(route())
    name = xds_shadow.name(OWNER)
    fragments = world.discovery.table[xds.SCOPE, name]["key"]["fragments"]
    assert len(fragments) == 2, "those of public ids have one"
    assert name.count(".") == 2, "Envoy keeps statistics of names with one dot"


class Slow(Discovery):
    """Envoy acknowledges what it was told when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.has: dict[tuple[str, str], dict[str, Any]] = {}

    def holds(self, kind: str, name: str) -> bool:
        return self.has.get((kind, name)) == self.table.get((kind, name))


def test_the_way_is_there_while_the_route_with_the_mirror_is_in_force() -> None:
    envoy = Slow()
    switch = Switch(envoy, "1", secret, Shadows(envoy, secret, "/run/shadow.sock"))
    endpoints = tuple(Endpoints(unit=unit, addresses=(f"unix:/run/{unit}.sock",)) for unit in ("one", "shadow"))
    scope, listener = (xds.SCOPE, xds_shadow.name(OWNER)), (xds.LISTENER, xds_shadow.LISTENER_NAME)

    def publish(*routes: Route, answered: int) -> list[tuple[bool, bool]]:
        """Whether scope and listener are told, after each time that Envoy answered."""
        switch.publish(routes, endpoints)
        seen = []
        for _ in range(answered):
            for kind in (xds.CLUSTER, xds.SCOPE):
                switch.answered(kind, None)
            for owner in list(switch.due):
                switch.settle(owner)
            switch.sweep()
            seen.append((scope in envoy.table, listener in envoy.table))
            envoy.has = dict(envoy.table)
        return seen

    there, absent = (True, True), (False, False)
    assert publish(route(), answered=3) == [absent, absent, there], "units, then the route, then what follows it"
    assert publish(replace(route(), mirror=None), answered=3)[-1] == absent
    assert publish(route(), answered=4)[-1] == there
    assert publish(answered=4)[-1] == absent
