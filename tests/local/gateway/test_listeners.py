"""The two listeners of a gateway that other machines reach: what each answers, and what only one does.

The other machine is a network namespace of the test, joined to this one by a pair of virtual interfaces.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from gateway_testing import upstream
from modelyard.base.clock import SystemClock
from modelyard.control.gateway import process
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints
from modelyard.testing.gateway_suite import FRAUD, IRIS, acknowledged, route
from modelyard.wire import oip_grpc
from network_testing import Network, needs_network, two_machines

pytestmark = needs_network
OPEN_TO_ALL = Platform(authentication="none")


@pytest.fixture
def network() -> Iterator[Network]:
    with two_machines() as found:
        yield found


class Exposed:
    def __init__(self, gateway: EnvoyGateway, network: Network) -> None:
        self.gateway = gateway
        self.network = network

    @property
    def port(self) -> int:
        return int(self.gateway.url.rpartition(":")[2])

    async def from_outside(self, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
        return await self.network.ask(self.network.address, self.port, path, **headers)

    async def from_here(self, path: str, **headers: str) -> tuple[int, str]:
        """By the internal listener."""
        url = self.gateway.local_url.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*url.split(":"))
        try:
            host = headers.pop("host", url)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 2\r\n\r\n{{}}".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = int(head.split("content-length: ")[1].split("\r\n")[0])
            return int(head.split()[1]), (await reader.readexactly(size)).decode()
        finally:
            writer.close()


@pytest.fixture
async def exposed(network: Network, run_folder: Path, tmp_path: Path) -> AsyncIterator[Exposed]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(upstream(run_folder / "a.sock", "a"))
        gateway = EnvoyGateway(host=network.address, port=0, run=run_folder, logs=tmp_path, clock=SystemClock())
        await stack.enter_async_context(gateway)
        yield Exposed(gateway, network)


async def publish(gateway: EnvoyGateway, folder: Path) -> None:
    """iris for all, fraud for callers of the internal listener."""
    routes = (route(IRIS, "a"), msgspec.structs.replace(route(FRAUD, "a"), internal=True))
    await gateway.publish(routes, (Endpoints(unit="a", addresses=(f"unix:{folder / 'a.sock'}",)),))
    for each in routes:
        await acknowledged(gateway, each)


def _stripped(answer: tuple[int, str, dict[str, str]], name: str) -> Any:
    status, body, headers = answer
    for each in ("date", "x-request-id"):
        headers.pop(each, None)
    return status, body.replace(name, "NAME"), {k: v for k, v in headers.items() if k != "content-length"}


async def test_until_it_is_said_who_may_call_other_machines_are_not_let_in(exposed: Exposed) -> None:
    assert (await exposed.from_outside("/v2/models/iris/infer"))[0] == 0


async def test_public_services_answer_on_both_internal_ones_on_loopback_alone(
    exposed: Exposed, run_folder: Path
) -> None:
    exposed.gateway.configure(OPEN_TO_ALL)
    await publish(exposed.gateway, run_folder)
    public, fraud = "/v2/models/iris/infer", "/v2/models/fraud.bank/infer"
    assert (await exposed.from_outside(public))[0] == 200
    assert (await exposed.from_here(public))[0] == 200
    assert (await exposed.from_here(fraud))[0] == 200
    hidden = await exposed.from_outside(fraud)
    unknown = await exposed.from_outside("/v2/models/gone.bank/infer")
    assert hidden[0] == 404
    assert _stripped(hidden, "fraud.bank") == _stripped(unknown, "gone.bank")
    for name in ("x-modelyard-listener", "X-Modelyard-Listener"):
        assert (await exposed.from_outside(fraud, **{name: "internal"}))[0] == 404


async def test_where_authentication_is_on_an_internal_service_is_forbidden_like_an_unknown_one(
    exposed: Exposed, run_folder: Path
) -> None:
    exposed.gateway.configure(Platform())
    await publish(exposed.gateway, run_folder)
    hidden = await exposed.from_outside("/v2/models/fraud.bank/infer")
    unknown = await exposed.from_outside("/v2/models/gone.bank/infer")
    assert hidden[0] in (401, 403)
    assert _stripped(hidden, "fraud.bank") == _stripped(unknown, "gone.bank")
    assert (await exposed.from_here("/v2/models/fraud.bank/infer"))[0] == 200


async def test_calls_of_grpc_see_the_same(exposed: Exposed, run_folder: Path) -> None:
    exposed.gateway.configure(OPEN_TO_ALL)
    await publish(exposed.gateway, run_folder)
    method = f"/{oip_grpc.SERVICE}/ModelReady"
    statuses = {}
    for name in ("fraud.bank", "gone.bank"):
        message = b"\x0a" + bytes([len(name)]) + name.encode()
        # This machine comes in by the public listener, too, when it calls the public address.
        async with grpc.aio.insecure_channel(f"{exposed.network.address}:{exposed.port}") as channel:
            call = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(message, timeout=10)
            statuses[name] = (refused.value.code(), (refused.value.details() or "").replace(name, "NAME"))
    assert statuses["fraud.bank"] == statuses["gone.bank"]
    assert statuses["fraud.bank"][0] == grpc.StatusCode.NOT_FOUND


async def test_the_internal_listener_is_for_this_machine_alone(exposed: Exposed) -> None:
    exposed.gateway.configure(OPEN_TO_ALL)
    port = int(exposed.gateway.local_url.rpartition(":")[2])
    assert (await exposed.network.ask(exposed.network.address, port, "/v2"))[0] == 0


async def test_on_loopback_there_is_one_listener_at_which_internal_services_answer(
    run_folder: Path, tmp_path: Path
) -> None:
    async with (
        upstream(run_folder / "a.sock", "a"),
        EnvoyGateway(host="127.0.0.1", port=0, run=run_folder, logs=tmp_path, clock=SystemClock()) as gateway,
    ):
        gateway.configure(OPEN_TO_ALL)
        await publish(gateway, run_folder)
        assert gateway.url == gateway.local_url
        here = Exposed(gateway, Network("", ""))
        assert (await here.from_here("/v2/models/fraud.bank/infer"))[0] == 200


async def test_where_all_others_may_call_web_pages_still_cannot_reach_internal_services(
    exposed: Exposed, run_folder: Path
) -> None:
    exposed.gateway.configure(OPEN_TO_ALL)
    await publish(exposed.gateway, run_folder)
    iris, fraud = "/v2/models/iris/infer", "/v2/models/fraud.bank/infer"
    assert (await exposed.from_outside(iris, Origin="https://example.com"))[0] == 200
    assert (await exposed.from_here(fraud))[0] == 200
    assert (await exposed.from_here(fraud, Origin="https://example.com"))[0] == 403
    assert (await exposed.from_here(fraud, host="rebound.example.com"))[0] == 403


async def test_other_machines_cannot_take_all_connections(
    network: Network, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_MOST_CONNECTIONS", 16)
    async with (
        upstream(run_folder / "a.sock", "a"),
        EnvoyGateway(host=network.address, port=0, run=run_folder, logs=tmp_path, clock=SystemClock()) as gateway,
        AsyncExitStack() as stack,
    ):
        gateway.configure(OPEN_TO_ALL)
        await publish(gateway, run_folder)
        found = Exposed(gateway, network)
        assert (await found.from_outside("/v2/models/iris/infer"))[0] == 200
        served = 0
        for _ in range(16):
            reader, writer = await asyncio.open_connection(network.address, found.port)
            stack.callback(writer.close)
            with contextlib.suppress(OSError):
                writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: gateway\r\n\r\n")
                served += b" 200 " in await reader.readline()
        assert 0 < served <= 12, "three quarters"
        assert (await found.from_outside("/v2/models/iris/infer"))[0] == 0
        assert (await found.from_here("/v2/models/iris/infer"))[0] == 200


async def test_all_networks_of_both_versions_of_ip_are_one_address(run_folder: Path, tmp_path: Path) -> None:
    async with EnvoyGateway(host="::", port=0, run=run_folder, logs=tmp_path, clock=SystemClock()) as gateway:
        gateway.configure(OPEN_TO_ALL)
        port = int(gateway.url.rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(OSError):
                        reader, writer = await asyncio.open_connection(host, port)
                        writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: gateway\r\n\r\n")
                        line = await reader.readline()
                        writer.close()
                        if b" 200 " in line:
                            break
                    await asyncio.sleep(0.02)
        assert gateway.url == f"http://{socket.gethostname()}:{port}"
