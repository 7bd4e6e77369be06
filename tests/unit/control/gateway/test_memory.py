"""The memory twin keeps the gateway's contract, and refuses what no caller may publish."""

import pytest

from modelyard.control.gateway.memory import MemoryGateway
from modelyard.control.ir.access import OPEN
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.platform import Issuer, Platform
from modelyard.control.ir.route import Backend, Endpoints, Route
from modelyard.testing.gateway_suite import IRIS, Bearer, GatewaySuite, route


class Rig:
    proxies = 1

    def __init__(self) -> None:
        self.gateway = MemoryGateway()
        self.gateway.configure(Platform(authentication="none"))
        self.issuers = tuple(
            Issuer(name=each, url=f"https://{each}.example", audiences=("models",), keys="{}")
            for each in ("corp", "other")
        )

    async def endpoints(self, unit: str) -> Endpoints:
        return Endpoints(unit=unit, addresses=(f"unix:/run/{unit}.sock",))

    async def ask(self, public_id: str, bearer: Bearer | None = None) -> tuple[int, str]:
        return self.gateway.ask(public_id, *(bearer or ()))


@pytest.fixture
def rig() -> Rig:
    return Rig()


class TestMemoryGateway(GatewaySuite):
    """Everything in the suite."""


async def test_without_automatic_nothing_is_acknowledged_before_it_settles() -> None:
    gateway = MemoryGateway(automatic=False)
    await gateway.publish((route(IRIS, "a"),), (Endpoints(unit="a", addresses=("unix:/a",)),))
    assert gateway.observe(IRIS) == ObservedRoute()
    gateway.settle()
    assert gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))


async def test_a_test_can_have_routes_rejected() -> None:
    gateway = MemoryGateway(refuses=lambda each: "no" if each.timeout_seconds > 60 else "")
    endpoints = (Endpoints(unit="a"),)
    await gateway.publish((route(IRIS, "a"),), endpoints)
    slow = Route(owner=IRIS, ids=("iris",), backends=(Backend(unit="a"),), timeout_seconds=61, access=OPEN)
    await gateway.publish((slow,), endpoints)
    assert gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"), rejected="no")


async def test_impossible_publications_are_refused() -> None:
    gateway = MemoryGateway()
    one = Endpoints(unit="a")
    with pytest.raises(ValueError, match="two routes"):
        await gateway.publish((route(IRIS, "a"), route(IRIS, "b")), ())
    with pytest.raises(ValueError, match="two sets of endpoints"):
        await gateway.publish((), (one, one))
    with pytest.raises(ValueError, match="add up to 100"):
        await gateway.publish((route(IRIS, "a", weight=50),), (one,))
    with pytest.raises(ValueError, match="no ids"):
        await gateway.publish((Route(owner=IRIS, ids=()),), ())
