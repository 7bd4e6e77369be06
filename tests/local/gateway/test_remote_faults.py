"""Gateways and control planes that come, go and hang: what must not cost a request, and what must not stand still."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import leader_testing
from gateway_testing import becomes_true
from modelyard.control.ir.observed import ObservedRoute
from modelyard.testing.gateway_suite import FRAUD, IRIS, acknowledged, route, until
from network_testing import needs_network
from remote_testing import Callers, RemoteRig, Switchboard, remote_rig

from .conftest import becomes

pytestmark = needs_network

PATH = "/v2/models/iris/infer"
KEEPALIVE_SECONDS = 18.0
LAME_DUCK_SECONDS = 1.0
"""For which a front goes on answering that was asked to end."""


@pytest.fixture
async def rig() -> AsyncIterator[RemoteRig]:
    async with remote_rig(2) as found:
        yield found


async def serve(rig: RemoteRig, unit: str = "a") -> None:
    await rig.gateway.publish((route(IRIS, unit),), (await rig.endpoints(unit),))
    await acknowledged(rig.gateway, route(IRIS, unit))


async def switch_over_and_over(rig: RemoteRig, times: int) -> None:
    """As rollouts do: the old unit ends once the new route is acknowledged."""
    everything = (await rig.endpoints("a"), await rig.endpoints("b"))
    for count in range(times):
        unit = "ab"[count % 2]
        await rig.gateway.publish((route(IRIS, unit),), everything)
        await acknowledged(rig.gateway, route(IRIS, unit))
        await rig.gateway.publish((route(IRIS, unit),), (await rig.endpoints(unit),))
        await asyncio.sleep(0.02)


async def test_a_gateway_that_starts_under_traffic_loses_no_request(rig: RemoteRig) -> None:
    await serve(rig)
    async with Callers(rig.pods, PATH) as callers:
        for _ in range(2):
            pod = await rig.add_pod()
            while not await pod.is_ready():
                await switch_over_and_over(rig, 2)
            while callers.by_pod[pod.name] < 50:
                await switch_over_and_over(rig, 2)
        await switch_over_and_over(rig, 10)
    assert callers.failures == []
    assert set(callers.by_pod) == {f"gateway-{number}" for number in range(4)}


async def test_what_is_in_force_stays_so_while_a_gateway_joins(rig: RemoteRig) -> None:
    await serve(rig)
    seen = set()
    pod = await rig.add_pod()
    while not await pod.is_ready():
        seen.add(rig.gateway.observe(IRIS))
    assert seen == {ObservedRoute(acknowledged=route(IRIS, "a"))}
    assert await rig.ask("iris") == (200, "a")


async def test_without_any_gateway_nothing_new_is_in_force_and_the_old_stays_so(rig: RemoteRig) -> None:
    await serve(rig)
    for each in rig.pods:
        each.send(signal.SIGKILL)
    await becomes_true(lambda: rig.gateway.nodes == ())
    both = (await rig.endpoints("a"), await rig.endpoints("b"))
    await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "b")), both)
    await asyncio.sleep(0.3)
    assert rig.gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))
    assert rig.gateway.observe(FRAUD) == ObservedRoute()
    rig.pods.clear()
    pod = await rig.add_pod()
    await acknowledged(rig.gateway, route(IRIS, "b"))
    await acknowledged(rig.gateway, route(FRAUD, "b"))
    await pod.ready()
    assert await rig.ask("iris") == (200, "b")


@pytest.mark.parametrize("how", ["killed", "stopped", "cut off"])
async def test_a_gateway_that_is_gone_holds_nothing_up_for_long(rig: RemoteRig, how: str) -> None:
    await serve(rig)
    one, other = rig.pods
    began = time.monotonic()
    if how == "cut off":
        rig.network.cut(one.namespace)
    else:
        one.send(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("a"), await rig.endpoints("b")))
    await until(rig.gateway, IRIS, lambda seen: seen.acknowledged == route(IRIS, "b"), KEEPALIVE_SECONDS)
    print(f"a gateway that is {how} held a rollout up for {time.monotonic() - began:.1f} s")
    assert rig.gateway.nodes == (other.name,)
    assert await rig.ask_pod(other, "iris") == (200, "b")
    if how == "stopped":
        one.send(signal.SIGCONT)
        await becomes(lambda: rig.ask("iris"), lambda answer: answer == (200, "b"))
        assert len(rig.gateway.nodes) == 2


async def test_a_gateway_that_is_killed_while_it_is_told_something_is_forgotten_at_once(rig: RemoteRig) -> None:
    both = (await rig.endpoints("a"), await rig.endpoints("b"))
    for count in range(8):
        for unit in "ab"[count % 2 :]:
            await rig.gateway.publish((route(IRIS, unit),), both)
            await asyncio.sleep(0.002 * count)
        for each in rig.pods:
            each.send(signal.SIGKILL)
        await becomes_true(lambda: rig.gateway.nodes == (), 10)
        rig.pods[:] = [await rig.add_pod()]
        await becomes_true(lambda: rig.gateway.nodes == (rig.pods[0].name,))


async def test_a_gateway_that_missed_a_switch_is_brought_up_without_losing_a_request(rig: RemoteRig) -> None:
    await serve(rig)
    one = rig.pods[0]
    async with Callers(rig.pods, PATH) as callers:
        await becomes_true(lambda: callers.by_pod[one.name] > 20)
        callers.avoid(one)
        await becomes_true(lambda: not callers.calls(one))
        one.send(signal.SIGSTOP)
        await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("a"), await rig.endpoints("b")))
        await until(rig.gateway, IRIS, lambda seen: seen.acknowledged == route(IRIS, "b"), KEEPALIVE_SECONDS)
        # The replica of the old unit goes on answering for a while, as one does that is asked to end.
        await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("b"),))
        before = callers.by_pod[one.name]
        one.send(signal.SIGCONT)
        callers.readmit(one)
        await becomes_true(lambda: callers.by_pod[one.name] > before + 50)
        await becomes_true(lambda: callers.latest[one.name] == "b")
    assert callers.failures == []


async def test_a_gateway_that_is_about_to_end_turns_its_callers_away_before(rig: RemoteRig) -> None:
    await serve(rig)
    one, other = rig.pods
    async with Callers(rig.pods, PATH, requests=10**9) as callers:
        await becomes_true(lambda: callers.by_pod[one.name] > 20)
        rig.gateway.expect([other.name], leaving=[one.name])
        callers.avoid(one)
        await becomes_true(lambda: not callers.calls(one))
        await switch_over_and_over(rig, 2)
        one.send(signal.SIGTERM)
        await becomes_true(lambda: rig.gateway.nodes == (other.name,))
        before = callers.by_pod[other.name]
        await becomes_true(lambda: callers.by_pod[other.name] > before + 50)
    assert callers.failures == []


async def test_nothing_is_in_force_while_a_gateway_that_serves_is_not_connected(rig: RemoteRig) -> None:
    await serve(rig)
    one, other = rig.pods
    rig.gateway.expect([one.name, other.name], leaving=[])
    one.send(signal.SIGKILL)
    await becomes_true(lambda: rig.gateway.nodes == (other.name,))
    await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("a"), await rig.endpoints("b")))
    await asyncio.sleep(0.5)
    assert rig.gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))
    rig.gateway.expect([other.name], leaving=[])  # its pod is known not to be ready
    await acknowledged(rig.gateway, route(IRIS, "b"))


@asynccontextmanager
async def leader(rig: RemoteRig, behind: Switchboard, unit: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A control plane for the pods of a rig; ended when left."""
    address = (await rig.endpoints(unit)).addresses[0].removeprefix("unix:")
    identity = rig.trust.operator()
    folder = rig.folder / f"leader-{unit}"
    folder.mkdir()
    for name, text in (("tls.crt", identity.certificate), ("tls.key", identity.key), ("ca.crt", identity.authority)):
        (folder / name).write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, leader_testing.__file__, str(folder), unit, address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        behind.behind = ("127.0.0.1", int(await said(process)))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(40):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_the_next_control_plane_takes_over_without_losing_a_request(how: str) -> None:
    async with remote_rig(0) as rig, Switchboard(rig.network.address) as board:
        async with leader(rig, board, "a") as first:
            pods = [await rig.add_pod(board.port) for _ in range(2)]
            assert await said(first) == "acknowledged"
            for each in pods:
                await each.ready()
            async with Callers(pods, PATH) as callers:
                await becomes_true(lambda: callers.answered["a"] > 50)
                began = time.monotonic()
                first.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
                async with leader(rig, board, "b") as second:
                    assert await said(second) == "acknowledged"
                    print(f"the first {how}: {time.monotonic() - began:.1f} s until the next one's route was in force")
                    await asyncio.sleep(LAME_DUCK_SECONDS)  # requests under way are answered
                    await rig.upstreams["a"].stop()
                    await becomes_true(lambda: set(callers.latest.values()) == {"b"})
                    count = callers.answered["b"]
                    await becomes_true(lambda: callers.answered["b"] > count + 500)
            assert callers.failures == []
