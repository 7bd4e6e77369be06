"""Switches, deaths and starts: what must not cost a request, and what must be said when it cannot work."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import psutil
import pytest

import gateway_testing
from gateway_testing import Load, becomes_true, upstream
from modelyard.base.clock import SystemClock
from modelyard.base.errors import UserError
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import IRIS, acknowledged, route, until

from .conftest import EnvoyRig


async def served_again(rig: EnvoyRig, public_id: str = "iris") -> float:
    """Seconds until a request is answered."""
    began = time.monotonic()
    async with asyncio.timeout(20):
        while True:
            try:
                if (await rig.ask(public_id))[0] == 200:
                    return time.monotonic() - began
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.01)


async def test_twenty_switches_under_load_lose_no_request(rig: EnvoyRig) -> None:
    everything = (await rig.endpoints("a"), await rig.endpoints("b"))
    await rig.gateway.publish((route(IRIS, "a"),), everything)
    await acknowledged(rig.gateway, route(IRIS, "a"))
    async with Load(f"{rig.gateway.url}/v2/models/iris/infer") as load:
        for count in range(1, 21):
            unit = "ab"[count % 2]
            # As a rollout does: the old unit is stopped once the new route is acknowledged.
            await rig.gateway.publish((route(IRIS, unit),), everything)
            await acknowledged(rig.gateway, route(IRIS, unit))
            await rig.gateway.publish((route(IRIS, unit),), (await rig.endpoints(unit),))
            await asyncio.sleep(0.02)
    assert load.failures == []
    assert min(load.answered["a"], load.answered["b"]) > 20


@asynccontextmanager
async def replica(path: Path, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, gateway_testing.__file__, str(path), name, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_replica_killed_out_of_two_loses_no_request(rig: EnvoyRig) -> None:
    paths = [rig.folder / "one.sock", rig.folder / "two.sock"]
    async with replica(paths[0], "one") as one, replica(paths[1], "two"):
        both = Endpoints(unit="u", addresses=tuple(f"unix:{each}" for each in paths))
        await rig.gateway.publish((route(IRIS, "u"),), (both,))
        await acknowledged(rig.gateway, route(IRIS, "u"))
        async with Load(f"{rig.gateway.url}/v2/models/iris/infer", callers=16) as load:
            await becomes_true(lambda: load.answered["one"] >= 50)
            one.send_signal(signal.SIGKILL)
            await one.wait()
            # Nobody tells the gateway for so long that a retry which may meet the dead one again would lose some.
            before = load.answered["two"]
            await becomes_true(lambda: load.answered["two"] >= before + 2000)
            await rig.gateway.publish((route(IRIS, "u"),), (Endpoints(unit="u", addresses=(f"unix:{paths[1]}",)),))
        assert load.failures == []


async def test_a_killed_envoy_serves_again_within_two_seconds(rig: EnvoyRig) -> None:
    await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, route(IRIS, "a"))
    for _ in range(2):
        pid, url = rig.gateway.pid, rig.gateway.url
        os.kill(pid, signal.SIGKILL)
        assert await served_again(rig) < 2
        assert (rig.gateway.pid != pid, rig.gateway.url) == (True, url)
        assert rig.gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))


async def test_what_is_published_while_envoy_is_down_comes_into_force(rig: EnvoyRig) -> None:
    await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, route(IRIS, "a"))
    other = Key(kind="ModelService", namespace="bank", name="fraud")
    os.kill(rig.gateway.pid, signal.SIGKILL)
    await rig.gateway.publish((route(other, "b"),), (await rig.endpoints("b"),))
    await acknowledged(rig.gateway, route(other, "b"))
    assert rig.gateway.observe(IRIS) == ObservedRoute()
    await served_again(rig, "fraud.bank")
    assert (await rig.ask("iris"))[0] == 404


async def test_endpoints_that_envoy_refuses_leave_the_former_ones_in_force_and_are_told(rig: EnvoyRig) -> None:
    await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, route(IRIS, "a"))
    far = Endpoints(unit="a", addresses=("unix:/" + "x" * 200,))
    await rig.gateway.publish((route(IRIS, "a"),), (far,))
    seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
    assert "socket path size" in seen.rejected
    assert seen.acknowledged == route(IRIS, "a")
    assert await rig.ask("iris") == (200, "a")
    os.kill(rig.gateway.pid, signal.SIGKILL)
    await served_again(rig)
    await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, route(IRIS, "a"))


async def test_a_time_limit_that_cannot_be_said_to_envoy_is_rejected(rig: EnvoyRig) -> None:
    endless = msgspec.structs.replace(route(IRIS, "a"), timeout_seconds=1e15)
    await rig.gateway.publish((endless,), (await rig.endpoints("a"),))
    seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
    assert "cannot be said to Envoy" in seen.rejected


async def test_two_thousand_routes_come_into_force_in_seconds(rig: EnvoyRig) -> None:
    addresses = (await rig.endpoints("a")).addresses
    keys = [Key(kind="ModelService", namespace="default", name=f"m{number}") for number in range(2000)]
    routes = tuple(route(key, f"u{number}") for number, key in enumerate(keys))
    units = tuple(Endpoints(unit=f"u{number}", addresses=addresses) for number in range(2000))
    began = time.monotonic()
    await rig.gateway.publish(routes, units)
    await becomes_true(lambda: all(rig.gateway.observe(key).acknowledged for key in keys), 60)
    print(f"2,000 routes in force after {time.monotonic() - began:.1f} s")
    assert await rig.ask("m1999") == (200, "a")
    began = time.monotonic()
    await rig.gateway.publish((*routes, route(IRIS, "u0")), units)
    await acknowledged(rig.gateway, route(IRIS, "u0"))
    print(f"one more after {(time.monotonic() - began) * 1000:.0f} ms")


def gateway(run: Path, logs: Path, *, host: str = "127.0.0.1", port: int = 0) -> EnvoyGateway:
    return EnvoyGateway(host=host, port=port, run=run, logs=logs, clock=SystemClock())


async def test_a_port_in_use_is_said_with_what_to_do(run_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port} \(.*in use\).*--listen HOST:PORT"):
            async with gateway(run_folder, tmp_path, port=port):
                pass


async def test_two_gateways_do_not_share_a_port(rig: EnvoyRig, tmp_path: Path) -> None:
    folder = rig.folder / "other"
    folder.mkdir()
    port = int(rig.gateway.url.rsplit(":", 1)[1])
    with pytest.raises(UserError, match="in use"):
        async with gateway(folder, tmp_path, port=port):
            pass
    async with gateway(folder, tmp_path) as other:
        assert other.url != rig.gateway.url


@pytest.mark.parametrize("host", ["example.com", "", "127.0.0.1.1", "[::1]:80"])
def test_what_is_no_address_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected an address of this machine"):
        gateway(tmp_path, tmp_path, host=host)


async def test_an_address_of_another_machine_is_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this machine does not have that address"):
        async with gateway(run_folder, tmp_path, host="192.0.2.1"):
            pass


async def test_ending_lets_requests_in_flight_finish_and_leaves_no_process(run_folder: Path, tmp_path: Path) -> None:
    async with upstream(run_folder / "a.sock", "a") as one, aiohttp.ClientSession() as caller:
        async with gateway(run_folder, tmp_path) as running:
            pid = running.pid
            await running.publish((route(IRIS, "a"),), (Endpoints(unit="a", addresses=(one.address,)),))
            await acknowledged(running, route(IRIS, "a"))
            one.hold()
            asked = asyncio.create_task(_asked(caller, running.url))
            async with asyncio.timeout(5):
                await one.holding.wait()
            asyncio.get_running_loop().call_later(0.2, one.release)
        assert await asked == 200
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def _asked(caller: aiohttp.ClientSession, url: str) -> int:
    async with caller.post(f"{url}/v2/models/iris/infer", data=b"{}") as answer:
        return answer.status


async def test_envoys_sockets_and_files_are_private(rig: EnvoyRig) -> None:
    assert (rig.folder / "envoy.sock").stat().st_mode & 0o777 == 0o600
    assert (rig.folder / "envoy.json").stat().st_mode & 0o777 == 0o600


async def test_only_the_listener_is_reachable_by_network(rig: EnvoyRig) -> None:
    listening = [each for each in psutil.Process(rig.gateway.pid).net_connections("inet") if each.status == "LISTEN"]
    assert {f"http://{each.laddr.ip}:{each.laddr.port}" for each in listening} == {rig.gateway.url}
