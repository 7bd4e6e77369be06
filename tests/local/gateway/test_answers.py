"""What a caller meets at the gateway: every answer of its own is a sentence, and nothing foreign gets in."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway_testing import Upstream
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import IRIS, acknowledged, route
from xds_testing import CASES, case, platform

from .conftest import EnvoyRig


async def serve_iris(rig: EnvoyRig, **changes: object) -> Upstream:
    wanted = msgspec.structs.replace(route(IRIS, "a"), **changes)
    await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, wanted)
    return rig.upstreams["a"]


async def test_the_gateway_answers_for_the_server(rig: EnvoyRig) -> None:
    off = Key(kind="ModelService", namespace="shop", name="off")
    live = Key(kind="ModelService", namespace="default", name="live")
    routes = (route(IRIS, "a"), route(live, "a"), route(off, unavailable="off"))
    await rig.gateway.publish(routes, (await rig.endpoints("a"),))
    for each in routes:
        await acknowledged(rig.gateway, each)
    for path in ("/v2", "/v2/"):
        status, body, headers = await rig.request("GET", path)
        assert (status, body["name"], body["extensions"]) == (200, "modelyard", [])
        assert headers["content-type"] == "application/json"
    assert (await rig.request("GET", "/v2/health/live"))[:2] == (200, {"live": True})
    assert (await rig.request("GET", "/v2/health/ready"))[:2] == (200, {"ready": True})
    models: object = None
    async with asyncio.timeout(5):
        while models != {"models": ["iris.default", "live.default", "off.shop"]}:
            _, models, _ = await rig.request("GET", "/v2/models")
    assert (await rig.request("GET", "/v2/models/live/ready"))[1]["unit"] == "a"


async def test_everything_below_a_model_goes_to_its_unit_as_it_was_sent(rig: EnvoyRig) -> None:
    await serve_iris(rig)
    for path in ("/v2/models/iris", "/v2/models/iris/ready", "/v2/models/iris.default/versions/1/echo?a=b"):
        status, body, _ = await rig.request("GET", path)
        assert (status, body["unit"]) == (200, "a")
        if path.endswith("echo?a=b"):
            assert body["head"].startswith(f"get {path} ")


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "/v2/models/nope/infer", 404, "nothing is served at /v2/models/nope/infer"),
        ("GET", "/", 404, "nothing is served at /:"),
        ("POST", "/v1/models/iris/infer", 404, "nothing is served"),
        ("GET", "/v2/models/iris.other", 404, "nothing is served"),
        ("GET", "/v2/health/other", 404, "nothing is served"),
        ("GET", "/v2/models/irisx/ready", 404, "nothing is served"),
        ("GET", "/v2/models/iris%2fready", 400, "not well formed"),
        ("GET", "/v2/models/iris/%00", 400, "not well formed"),
        ("GET", "/v2/models/" + "x" * 20_000, 431, "headers are too large"),
    ],
)
async def test_what_is_not_there_is_said_in_a_sentence(
    rig: EnvoyRig, method: str, path: str, status: int, said: str
) -> None:
    await serve_iris(rig)
    found, body, headers = await rig.request(method, path)
    assert (found, list(body)) == (status, ["error"])
    assert said in body["error"]
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["//v2/models/iris/ready", "/v2/models/%69ris/ready", "/v2/x/../models/iris/ready"])
async def test_paths_are_normalized_before_a_model_is_chosen(rig: EnvoyRig, path: str) -> None:
    await serve_iris(rig)
    assert (await rig.request("GET", path))[0] == 200


async def test_a_slow_model_is_cut_at_its_time_limit(rig: EnvoyRig) -> None:
    await serve_iris(rig, timeout_seconds=0.2)
    status, body, _ = await rig.request("POST", "/v2/models/iris/slow", data=b"{}")
    assert (status, list(body)) == (504, ["error"])
    assert "spec.timeout" in body["error"]


async def test_a_unit_that_does_not_answer_is_unavailable_with_a_hint_when_to_try_again(rig: EnvoyRig) -> None:
    gone = Endpoints(unit="gone", addresses=(f"unix:{rig.folder}/gone.sock",))
    await rig.gateway.publish((route(IRIS, "gone"),), (gone,))
    await acknowledged(rig.gateway, route(IRIS, "gone"))
    status, body, headers = await rig.request("POST", "/v2/models/iris/infer", data=b"{}")
    assert (status, headers["retry-after"]) == (503, "1")
    assert "try again" in body["error"]
    await rig.gateway.publish((route(IRIS, "gone"),), (Endpoints(unit="gone"),))
    async with asyncio.timeout(5):
        while "is ready" not in body["error"]:
            status, body, headers = await rig.request("POST", "/v2/models/iris/infer", data=b"{}")
    assert (status, headers["retry-after"]) == (503, "2")


async def test_large_bodies_pass_without_being_kept(rig: EnvoyRig) -> None:
    await serve_iris(rig)
    size = 24 * 2**20

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // 2**16):
            yield bytes(2**16)

    assert (await rig.request("POST", "/v2/models/iris/infer", data=io.BytesIO(bytes(size))))[1]["bytes"] == size
    assert (await rig.request("POST", "/v2/models/iris/infer", data=chunks()))[1]["bytes"] == size


async def test_headers_that_steer_the_gateway_or_name_a_caller_are_not_taken_from_callers(rig: EnvoyRig) -> None:
    await serve_iris(rig)
    headers = {
        "x-envoy-upstream-rq-timeout-ms": "1",
        "X-Envoy-Retry-On": "5xx",
        "X-Auth-Sub": "admin",
        "x-modelyard-secret": "guess",
        "x-kept": "yes",
    }
    _, body, answered = await rig.request("GET", "/v2/models/iris/echo", headers=headers)
    assert "x-kept: yes" in body["head"]
    for name in ("timeout-ms", "retry-on", "x-auth", "x-modelyard"):
        assert name not in body["head"]
    assert not [name for name in answered if name.startswith("x-envoy")]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:9999"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "rebound.example.com"}, 403),
        ({"Host": "127.0.0.1.example.com"}, 403),
        ({"Host": "localhost.example.com:80"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://example.com"}, 403),
        ({"Origin": "https://localhost.example.com"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_only_programs_of_this_machine_may_call(rig: EnvoyRig, headers: dict[str, str], status: int) -> None:
    await serve_iris(rig)
    found, body, _ = await rig.request("GET", "/v2/models/iris/ready", headers=headers)
    assert found == status
    assert status == 200 or "its own machine" in body["error"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /v2/models/iris HTTP/1.1\r\n\r\n",
        b"GET http://[bad/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v2/models/iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v2/models/iris HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 500 + b"\r\n",
        b"GET /v2/models/../../../etc/passwd HTTP/1.0\r\n\r\n",
    ],
)
async def test_malformed_requests_are_refused_and_harm_nobody(rig: EnvoyRig, sent: bytes) -> None:
    await serve_iris(rig)
    pid = rig.gateway.pid
    reader, writer = await asyncio.open_connection("127.0.0.1", int(rig.gateway.url.rsplit(":", 1)[1]))
    writer.write(sent)
    async with asyncio.timeout(10):
        status = (await reader.readline()).split(b" ")
    writer.close()
    await writer.wait_closed()
    assert not status[1:] or 400 <= int(status[1]) < 500
    assert await rig.ask("iris") == (200, "a")
    assert rig.gateway.pid == pid


async def test_traffic_is_shared_by_weight(rig: EnvoyRig) -> None:
    wanted = route(IRIS, "a", "b")
    shares = tuple(
        msgspec.structs.replace(each, weight=weight) for each, weight in zip(wanted.backends, (90, 10), strict=True)
    )
    wanted = msgspec.structs.replace(wanted, backends=shares)
    await rig.gateway.publish((wanted,), (await rig.endpoints("a"), await rig.endpoints("b")))
    await acknowledged(rig.gateway, wanted)
    found = [(await rig.ask("iris"))[1] for _ in range(300)]
    assert 5 <= found.count("b") <= 75


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
async def test_envoy_accepts_what_the_goldens_say(rig: EnvoyRig, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    routes, endpoints = case(path)
    if (given := platform(path)) is not None:
        rig.gateway.configure(given)
        routes = (route(IRIS, unavailable="off"),)  # acknowledged after what holds for all
    await rig.gateway.publish(routes, endpoints)
    for each in routes:
        await acknowledged(rig.gateway, each)
    assert "was refused" not in caplog.text
