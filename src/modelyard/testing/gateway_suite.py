"""What every Gateway must do. Inherit from `GatewaySuite` and give a fixture `rig`."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from modelyard.control.engine.ports import Gateway
from modelyard.control.ir.access import OPEN
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.route import Backend, Endpoints, Route
from modelyard.control.ir.values import Key

DEADLINE_SECONDS = 10.0
POLL_SECONDS = 0.005

IRIS = Key(kind="ModelService", namespace="default", name="iris")
FRAUD = Key(kind="ModelService", namespace="bank", name="fraud")


class GatewayRig(Protocol):
    """A running gateway with upstreams."""

    @property
    def gateway(self) -> Gateway: ...

    async def endpoints(self, unit: str) -> Endpoints:
        """Where a replica of the unit answers with the unit's name; started when it is asked for first."""
        ...

    async def ask(self, public_id: str) -> tuple[int, str]:
        """One inference: (200, the unit that answered) or (an error's status, its sentence)."""
        ...


def route(owner: Key, *units: str, unavailable: str = "", weight: int = 100) -> Route:
    """A route to units that share its traffic; with `weight=0` one that every gateway refuses."""
    backends = tuple(Backend(unit=unit, weight=weight // len(units)) for unit in units)
    ids = (f"{owner.name}.{owner.namespace}",) + ((owner.name,) if owner.namespace == "default" else ())
    return Route(owner=owner, ids=ids, backends=backends, unavailable=unavailable, access=OPEN)


async def until(
    gateway: Gateway, owner: Key, holds: Callable[[ObservedRoute], bool], seconds: float = DEADLINE_SECONDS
) -> ObservedRoute:
    """Wait for a fact about an owner's route; the assertion shows what was observed instead."""
    deadline = time.monotonic() + seconds
    while not holds(gateway.observe(owner)):
        assert time.monotonic() < deadline, f"still {gateway.observe(owner)} after {seconds} s"
        await asyncio.sleep(POLL_SECONDS)
    return gateway.observe(owner)


async def acknowledged(gateway: Gateway, wanted: Route) -> None:
    """Wait until a route is in force."""
    await until(gateway, wanted.owner, lambda seen: seen == ObservedRoute(acknowledged=wanted))


class GatewaySuite:
    """The contract of `modelyard.control.engine.ports.Gateway`."""

    async def test_a_published_route_is_acknowledged_and_answers_under_all_its_ids(self, rig: GatewayRig) -> None:
        wanted = route(IRIS, "a")
        assert rig.gateway.observe(IRIS) == ObservedRoute()
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, wanted)
        assert await rig.ask("iris.default") == (200, "a")
        assert await rig.ask("iris") == (200, "a")

    async def test_an_id_that_no_route_has_is_not_found(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(FRAUD, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(FRAUD, "a"))
        assert (await rig.ask("fraud"))[0] == 404
        assert (await rig.ask("fraud.default"))[0] == 404

    async def test_owners_are_hinted_when_their_route_is_acknowledged_or_removed(self, rig: GatewayRig) -> None:
        hints = rig.gateway.hints()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
            assert await anext(hints) == IRIS
            await acknowledged(rig.gateway, route(IRIS, "a"))
            await rig.gateway.publish((), (await rig.endpoints("a"),))
            assert await anext(hints) == IRIS
            assert rig.gateway.observe(IRIS) == ObservedRoute()

    async def test_a_route_without_backends_says_why(self, rig: GatewayRig) -> None:
        wanted = route(IRIS, unavailable='the service is scaled to zero: set "replicas" to 1')
        await rig.gateway.publish((wanted,), ())
        await acknowledged(rig.gateway, wanted)
        assert await rig.ask("iris") == (503, 'the service is scaled to zero: set "replicas" to 1')

    async def test_a_unit_without_ready_replicas_is_unavailable_and_comes_back(self, rig: GatewayRig) -> None:
        wanted = route(IRIS, "a")
        await rig.gateway.publish((wanted,), (Endpoints(unit="a"),))
        await acknowledged(rig.gateway, wanted)
        assert (await rig.ask("iris"))[0] == 503
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await _answered(rig, "iris", (200, "a"))

    async def test_a_route_is_not_switched_before_its_new_unit_is_known(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("a"),))
        await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "a")), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(FRAUD, "a"))
        assert rig.gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))
        assert await rig.ask("iris") == (200, "a")
        both = (await rig.endpoints("a"), await rig.endpoints("b"))
        await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "a")), both)
        await acknowledged(rig.gateway, route(IRIS, "b"))
        assert await rig.ask("iris") == (200, "b")

    async def test_endpoints_of_a_route_in_force_outlive_their_publication(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "c")), (await rig.endpoints("c"),))
        await acknowledged(rig.gateway, route(FRAUD, "c"))
        assert await rig.ask("iris") == (200, "a")

    async def test_a_rejected_route_leaves_the_former_one_in_force_and_others_alone(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        both = (await rig.endpoints("a"), await rig.endpoints("b"))
        await rig.gateway.publish((route(FRAUD, "b"), route(IRIS, "b", weight=0)), both)
        await acknowledged(rig.gateway, route(FRAUD, "b"))
        seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
        assert "weight" in seen.rejected
        assert seen.acknowledged == route(IRIS, "a")
        assert await rig.ask("iris") == (200, "a")
        assert await rig.ask("fraud.bank") == (200, "b")
        await rig.gateway.publish((route(FRAUD, "b"), route(IRIS, "b")), both)
        await acknowledged(rig.gateway, route(IRIS, "b"))
        assert await rig.ask("iris") == (200, "b")

    async def test_a_new_route_that_is_rejected_is_not_in_force(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a", weight=0),), (await rig.endpoints("a"),))
        seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
        assert seen.acknowledged is None
        assert (await rig.ask("iris"))[0] == 404

    async def test_a_removed_route_is_gone(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"), route(FRAUD, "a")), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await rig.gateway.publish((route(FRAUD, "a"),), (await rig.endpoints("a"),))
        await until(rig.gateway, IRIS, lambda seen: seen == ObservedRoute())
        assert (await rig.ask("iris"))[0] == 404
        await _answered(rig, "fraud.bank", (200, "a"))

    async def test_an_id_belongs_to_the_route_that_has_it(self, rig: GatewayRig) -> None:
        first = Key(kind="ModelService", namespace="default", name="a-newcomer")
        thief = Route(owner=first, ids=("iris",), backends=(Backend(unit="b"),), access=OPEN)
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        both = (await rig.endpoints("a"), await rig.endpoints("b"))
        await rig.gateway.publish((thief, route(IRIS, "a")), both)
        seen = await until(rig.gateway, first, lambda each: each.rejected != "")
        assert "'iris' belongs to ModelService default/iris" in seen.rejected
        assert await rig.ask("iris") == (200, "a")
        await rig.gateway.publish((thief,), both)
        await acknowledged(rig.gateway, thief)
        assert await rig.ask("iris") == (200, "b")
        assert (await rig.ask("iris.default"))[0] == 404

    async def test_publishing_the_same_again_hints_nobody(self, rig: GatewayRig) -> None:
        hints = rig.gateway.hints()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
            assert await anext(hints) == IRIS
            await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
            await rig.gateway.publish((route(IRIS, "a"), route(FRAUD, "a")), (await rig.endpoints("a"),))
            assert await anext(hints) == FRAUD


async def _answered(rig: GatewayRig, public_id: str, wanted: tuple[int, str]) -> None:
    """Wait for an answer: that a known unit's new endpoints are in force is acknowledged to nobody."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (found := await rig.ask(public_id)) != wanted:
        assert time.monotonic() < deadline, f"still {found} after {DEADLINE_SECONDS} s"
        await asyncio.sleep(POLL_SECONDS)
