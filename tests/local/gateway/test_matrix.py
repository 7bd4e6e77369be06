"""Ways round the gateway's rules that people try: none of them reaches a model that the caller may not call."""

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2

from gateway_testing import Upstream
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import Bearer, acknowledged, only, route
from tokens_testing import token

from .conftest import LAPTOP, EnvoyRig, becomes

MINE = Key(kind="ModelService", namespace="default", name="mine")
SECRET = Key(kind="ModelService", namespace="default", name="secret")
BOB = token("corp", sub="bob")
AS_BOB = f"Authorization: Bearer {BOB}\r\n"


@pytest.fixture
async def secret(rig: EnvoyRig) -> Upstream:
    """The replica that bob must not reach; he may call `mine`, and nobody is open."""
    rig.gateway.configure(Platform(issuers=rig.issuers))
    routes = (route(MINE, "mine", access=only("bob")), route(SECRET, "secret", access=only("ana")))
    await rig.gateway.publish(routes, (await rig.endpoints("mine"), await rig.endpoints("secret")))
    for each in routes:
        await acknowledged(rig.gateway, each)
    await becomes(lambda: rig.ask("mine", Bearer("corp", {"sub": "bob"})), lambda answer: answer == (200, "mine"))
    return rig.upstreams["secret"]


async def sent(rig: EnvoyRig, data: str, most: int = 10) -> list[tuple[int, str]]:
    """Status and body of the answers on one connection, until it closes, is idle, or has given as many."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(rig.gateway.url.rsplit(":", 1)[1]))
    answers: list[tuple[int, str]] = []
    try:
        writer.write(data.encode("latin-1"))
        while len(answers) < most:
            async with asyncio.timeout(0.5 if answers else 10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0]) if "content-length: " in head else 0
            body = b"" if data.startswith("HEAD ") else await reader.readexactly(length)
            answers.append((int(head.split(" ")[1]), body.decode()))
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answers


async def asked(
    rig: EnvoyRig, path: str, headers: str = "", method: str = "GET", host: str = "localhost"
) -> tuple[int, str]:
    """One request of bob's, its head spelled just so."""
    (answer,) = await sent(rig, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{AS_BOB}{headers}\r\n", 1)
    return answer


PATHS = [
    "/v2/models/secret",
    "/v2/models/secret/infer",
    "/v2/models/secret.default/infer",
    "/v2/models/secret?x=1",
    "/v2/models/secret/infer?model=mine",
    "/v2/models/secret/../secret/infer",
    "/v2/models/mine/../secret/infer",
    "/v2/models/mine/%2e%2e/secret/infer",
    "/v2/models/mine/.%2e/secret/infer",
    "/v2/models/mine%2f..%2fsecret/infer",
    "/v2/models/mine%2F../secret/infer",
    "/v2/models/mine/..%2fsecret",
    "/v2/models/mine%5c..%5csecret",
    "/v2/models/mine\\..\\secret",
    "/v2/models/mine/..\\secret",
    "/v2/models/mine/..;/secret/infer",
    "/v2/models/secret;x=1/infer",
    "/v2/./models/secret/infer",
    "/v2/x/../models/secret/infer",
    "//v2/models/secret/infer",
    "/v2//models/secret/infer",
    "/v2/models//secret/infer",
    "/v2///models///secret",
    "/v2/models/%73ecret/infer",
    "/v2/models/secre%74",
    "/v2/models/secret%00/infer",
    "/v2/models/secret%20/infer",
    "/v2/models/secret%3f/infer",
    "/v2/models/secret#/../mine",
    "/V2/models/secret/infer",
    "/v2/MODELS/secret/infer",
    "/v2/models/SECRET/infer",
    "/v1/models/secret:predict",
    "/inference.GRPCInferenceService/ModelInfer/secret",
    "/inference.GRPCInferenceService/ModelReady/secret",
    "http://localhost/v2/models/secret/infer",
    "http://mine@localhost/v2/models/secret",
    "v2/models/secret",
    "*",
    "?/v2/models/secret",
]


async def test_no_spelling_of_a_path_leads_past_the_rules(rig: EnvoyRig, secret: Upstream) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "OPTIONS", "HEAD", "PUT", "TRACE"):
            status, _ = await asked(rig, path, "Content-Length: 0\r\n", method)
            assert status in (400, 403, 404, 405, 426, 501), (method, path)
    assert secret.requests == 0
    assert (await asked(rig, "/v2/models/mine?x=1"))[0] in (403, 404), "the id ends where the query begins"
    assert (await asked(rig, "/v2/models/mine/infer?x=1"))[0] == 200


HEADERS = [
    "x-model: mine",
    "X-Model: secret",
    "x-auth-sub: ana",
    "x-auth-groups: system:masters",
    "X-Auth-Issuer: corp",
    "x-modelyard-listener: internal",
    "X-Modelyard-Model: mine",
    "x-envoy-original-path: /v2/models/mine/infer",
    "x-envoy-internal: true",
    "X-Original-URL: /v2/models/mine/infer",
    "X-Rewrite-URL: /v2/models/mine/infer",
    "X-HTTP-Method-Override: OPTIONS",
    "X-Forwarded-Host: localhost",
    "X-Forwarded-For: 127.0.0.1",
    "X-Forwarded-User: ana",
    "Impersonate-User: ana",
    "Forwarded: for=127.0.0.1;host=localhost",
    "Cookie: access_token=ana",
    "Access-Control-Request-Method: POST\r\nOrigin: http://localhost",
]


async def test_no_header_makes_a_caller_another_one(rig: EnvoyRig, secret: Upstream) -> None:
    for header in HEADERS:
        for method in ("GET", "OPTIONS"):
            assert (await asked(rig, "/v2/models/secret/infer", f"{header}\r\n", method))[0] == 403, header
    assert secret.requests == 0


@pytest.mark.parametrize(
    "header", ["X-Original-URL", "X-Rewrite-URL", "x-envoy-original-path", "X-Forwarded-Prefix", "x-model"]
)
async def test_no_header_sends_an_allowed_request_elsewhere(rig: EnvoyRig, secret: Upstream, header: str) -> None:
    status, body = await asked(rig, "/v2/models/mine/infer", f"{header}: /v2/models/secret/infer\r\n")
    assert (status, '"mine"' in body) == (200, True)
    assert secret.requests == 0


async def test_several_tokens_and_huge_ones_are_no_way_in(rig: EnvoyRig, secret: Upstream) -> None:
    ana = token("other", sub="ana")  # of an issuer that gives nobody anything
    for headers, statuses in (
        (f"Authorization: Bearer {ana}\r\n", (400, 401, 403)),
        (f"x-api-key: {ana}\r\n", (403,)),
        ("Authorization: Basic YW5hOmFuYQ==\r\n", (400, 401, 403)),
        (f"Authorization: Bearer {'a' * 9000}\r\n", (400, 401, 403)),
        (f"Authorization: Bearer {'a' * 20_000}\r\n", (431,)),
        ("X-Padding: " + "a" * 20_000 + "\r\n", (431,)),
        ("".join(f"x-{number}: y\r\n" for number in range(200)), (431,)),
    ):
        assert (await asked(rig, "/v2/models/secret/infer", headers))[0] in statuses, headers[:60]
    assert secret.requests == 0


async def test_a_connection_upgraded_or_tunnelled_is_no_way_in(rig: EnvoyRig, secret: Upstream) -> None:
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for path, status in (("/v2/models/mine/infer", {200, 403, 404}), ("/v2/models/secret/infer", {403})):
        answers = await sent(rig, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{AS_BOB}{upgrade}\r\n{preface}")
        assert {each for each, _ in answers[:1]} <= status
        assert 101 not in {each for each, _ in answers}
    websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    assert (await asked(rig, "/v2/models/secret", websocket))[0] == 403
    for target in ("localhost:80", "secret:443", "/v2/models/secret/infer"):
        answers = await sent(rig, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{AS_BOB}\r\n")
        assert {each for each, _ in answers} <= {400, 401, 403, 404, 405}, target
    assert secret.requests == 0


async def test_a_request_hidden_in_another_one_is_judged_by_itself(rig: EnvoyRig, secret: Upstream) -> None:
    hidden = "GET /v2/models/secret/infer HTTP/1.1\r\nHost: localhost\r\n\r\n"
    outer = f"POST /v2/models/mine/infer HTTP/1.1\r\nHost: localhost\r\n{AS_BOB}"
    chunked = "Transfer-Encoding: chunked\r\n"
    for head, body in (
        (f"Content-Length: {len(hidden)}\r\n{chunked}", f"0\r\n\r\n{hidden}"),
        ("Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n", f"0\r\n\r\n{hidden}"),
        ("Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", f"0\r\n\r\n{hidden}"),
        (f"Content-Length: 0\r\nContent-Length: {len(hidden)}\r\n", hidden),
        (chunked, f"0\r\n\r\n{hidden}"),
        ("Content-Length: 0\r\n", hidden),
        ("Content-Length: +0\r\n", hidden),
    ):
        answers = await sent(rig, f"{outer}{head}\r\n{body}")
        assert {status for status, _ in answers} <= {200, 400, 401, 411, 501}, head
        assert not any('"secret"' in text for _, text in answers), head
    assert secret.requests == 0


async def test_calls_are_judged_by_the_model_that_their_message_names(rig: EnvoyRig, secret: Upstream) -> None:
    def message(name: str) -> bytes:
        return bytes(service_pb2.ModelInferRequest(model_name=name).SerializeToString())

    # Of a field that comes twice the last one counts, for the front as for the gateway.
    twice = message("mine") + message("secret")
    metadata = (("authorization", f"Bearer {BOB}"), ("x-model", "mine"))
    for path, body in (
        ("ModelInfer", message("secret")),
        ("ModelInfer", message("secret.default")),
        ("ModelInfer", message("SECRET")),
        ("ModelInfer", message("../secret")),
        ("ModelInfer", message("mine/../secret")),
        ("ModelInfer", message("secret?")),
        ("ModelInfer", twice),
        ("ModelReady", twice),
        ("ModelMetadata", message("secret")),
        ("ModelInfer/mine", message("secret")),
        ("ModelInfer/secret", message("mine")),
        ("ModelInfer/../ModelInfer/secret", message("mine")),
        ("ModelInfer?x=/secret", message("secret")),
        ("modelinfer", message("secret")),
    ):
        mine = rig.upstreams["mine"].requests
        async with grpc.aio.insecure_channel(rig.gateway.url.removeprefix("http://")) as channel:
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{path}", bytes, bytes)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(body, timeout=20, metadata=metadata)
        passed = rig.upstreams["mine"].requests > mine  # the stand-in speaks no gRPC
        assert passed or caught.value.code() != grpc.StatusCode.OK, path
    assert secret.requests == 0


async def test_a_web_page_elsewhere_cannot_call_a_laptop_whatever_it_calls_itself(rig: EnvoyRig) -> None:
    rig.gateway.configure(LAPTOP)
    await rig.gateway.publish((route(MINE, "mine"),), (await rig.endpoints("mine"),))
    await acknowledged(rig.gateway, route(MINE, "mine"))
    await becomes(lambda: rig.ask("mine"), lambda answer: answer[0] == 200)
    before, path = rig.upstreams["mine"].requests, "/v2/models/mine/infer"
    for host in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8080",
        "127.0.0.1@evil.example",
        "127.0.0.1evil",
        "192.168.0.7",
        "0.0.0.0",
        "[::2]",
        "2130706433",
        "localhost, evil.example",
    ):
        assert (await asked(rig, path, host=host))[0] in (400, 403), host
    for origin in ("http://evil.example", "null", "http://localhost.evil.example", "file://", "https://127.0.0.1.x"):
        assert (await asked(rig, path, f"Origin: {origin}\r\n"))[0] == 403, origin
    assert (await asked(rig, path, "Sec-Fetch-Site: cross-site\r\n"))[0] == 403
    absolute = f"GET http://evil.example{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert (await sent(rig, absolute, 1))[0][0] == 403
    two = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert (await sent(rig, two, 1))[0][0] in (400, 403)
    assert rig.upstreams["mine"].requests == before
    assert (await asked(rig, path, "Origin: http://localhost:3000\r\n", host="LOCALHOST:8080"))[0] == 200
    assert (await asked(rig, path, "Sec-Fetch-Site: same-origin\r\n"))[0] == 200
