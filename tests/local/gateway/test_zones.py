"""Gateways and replicas in two zones: who answers whom."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gateway_testing import becomes_true
from modelyard.control.ir.route import Endpoints
from modelyard.testing.gateway_suite import IRIS, acknowledged, route
from network_testing import needs_network
from remote_testing import GatewayPod, RemoteRig, remote_rig

pytestmark = needs_network

UNIT = "iris-svc-00001.default"
REQUESTS = 60


@pytest.fixture
async def rig() -> AsyncIterator[RemoteRig]:
    """A gateway in each of the zones a and b, and one in a zone that is not known."""
    async with remote_rig(0) as found:
        for zone in ("a", "b", ""):
            await found.add_pod(zone=zone)
        await found.gateway.publish((), ())
        for each in found.pods:
            await each.ready()
        yield found


async def serve(rig: RemoteRig, **zones: str) -> None:
    """Replicas of one unit, by their names, which they answer with, and zones."""
    addresses = {name: (await rig.endpoints(name)).addresses[0] for name in zones}
    placed = sorted((addresses[name], zone) for name, zone in zones.items())
    endpoints = Endpoints(
        unit=UNIT, addresses=tuple(address for address, _ in placed), zones=tuple(zone for _, zone in placed)
    )
    await rig.gateway.publish((route(IRIS, UNIT),), (endpoints,))
    await acknowledged(rig.gateway, route(IRIS, UNIT))


async def answers(rig: RemoteRig, pod: GatewayPod, requests: int = REQUESTS) -> Counter[str]:
    found = Counter([await rig.ask_pod(pod, "iris") for _ in range(requests)])
    assert {status for status, _ in found} == {200}, found
    return Counter({name: count for (_, name), count in found.items()})


async def test_requests_stay_in_their_zone_and_leave_it_when_nobody_is_there(rig: RemoteRig) -> None:
    in_a, in_b, nowhere = rig.pods
    await serve(rig, one="a", two="b")
    assert await answers(rig, in_a) == {"one": REQUESTS}
    assert await answers(rig, in_b) == {"two": REQUESTS}
    assert (await answers(rig, nowhere)).keys() == {"one", "two"}
    await serve(rig, one="a", three="a")
    assert (await answers(rig, in_b)).keys() == {"one", "three"}


async def test_a_zone_with_too_few_replicas_keeps_what_they_can_bear(rig: RemoteRig) -> None:
    in_a = rig.pods[0]
    await serve(rig, one="a", two="b", three="b", four="c", five="c")
    found = await answers(rig, in_a, 200)  # a third of all requests comes by this zone, a fifth of all replicas is here
    assert found["one"] > 80
    assert sum(found.values()) - found["one"] > 40


async def test_when_the_replica_of_a_zone_dies_no_request_fails(rig: RemoteRig) -> None:
    in_a = rig.pods[0]
    await serve(rig, one="a", two="b")
    assert await answers(rig, in_a) == {"one": REQUESTS}
    await rig.upstreams["one"].stop()
    assert await answers(rig, in_a) == {"two": REQUESTS}


async def test_a_gateway_that_goes_leaves_its_share_to_the_others(rig: RemoteRig) -> None:
    in_a, in_b, nowhere = rig.pods
    for each in (in_b, nowhere):
        await each.end()
    await becomes_true(lambda: rig.gateway.nodes == (in_a.name,))
    rig.pods = [in_a]
    await serve(rig, one="a", two="b")
    found = await answers(rig, in_a, 200)
    assert min(found["one"], found["two"]) > 60, "all requests come by this zone, so that one replica would not do"
