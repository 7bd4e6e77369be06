"""One request: what is repeated, what a refusal says, what is not followed, what has an end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kube_testing import Request, ScriptedServer, answering, resetting, silence, until
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.kube import client as kube_client
from modelyard.control.kube.client import JSON_PATCH, ApiError, Client
from modelyard.control.kube.resources import CONFIGMAPS, DEPLOYMENTS, MODELSERVICES, NAMESPACES

BODY = {"metadata": {"name": "a", "namespace": "default", "resourceVersion": "5"}}


@asynccontextmanager
async def connected(server: ScriptedServer, **options: Any) -> AsyncIterator[Client]:
    options = {"attempts": 3, "pause": 0.005, "timeout": 5, **options}
    async with server, Client(server.config, **options) as client:
        yield client


def asked(server: ScriptedServer) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in server.requests]


async def test_every_verb_has_its_request() -> None:
    server = ScriptedServer(always=lambda _: answering(200, BODY), token="s3cret")
    async with connected(server) as client:
        await client.get(MODELSERVICES, "default", "a")
        await client.get(NAMESPACES, None, "a")
        await client.list(CONFIGMAPS, "default", limit="5", labelSelector="a=b,c")
        await client.create(CONFIGMAPS, BODY)
        await client.replace_status(MODELSERVICES, BODY)
        await client.patch(CONFIGMAPS, "default", "a", {"data": {}})
        await client.patch(CONFIGMAPS, "default", "a", [], kind=JSON_PATCH)
        assert await client.delete(CONFIGMAPS, "default", "a") == BODY
        await client.delete(CONFIGMAPS, "default", "a", preconditions={"uid": "u-1"})
    ours, core = (
        "/apis/modelyard.dev/v1alpha1/namespaces/default/modelservices",
        "/api/v1/namespaces/default/configmaps",
    )
    assert asked(server) == [
        ("GET", f"{ours}/a"),
        ("GET", "/api/v1/namespaces/a"),
        ("GET", core),
        ("POST", core),
        ("PUT", f"{ours}/a/status"),
        ("PATCH", f"{core}/a"),
        ("PATCH", f"{core}/a"),
        ("DELETE", f"{core}/a"),
        ("DELETE", f"{core}/a"),
    ]
    assert server.requests[7].body == b""
    assert json.loads(server.requests[8].body)["preconditions"] == {"uid": "u-1"}
    assert server.requests[2].query == {"limit": "5", "labelSelector": "a=b,c"}
    assert json.loads(server.requests[3].body) == BODY
    types = [request.headers["content-type"] for request in server.requests[5:7]]
    assert types == ["application/merge-patch+json", "application/json-patch+json"]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer s3cret"}


async def test_server_side_apply_names_its_manager_and_the_kind() -> None:
    server = ScriptedServer(always=lambda _: answering(200, BODY))
    async with connected(server) as client:
        await client.apply(DEPLOYMENTS, BODY, "modelyard-operator")
        await client.apply(DEPLOYMENTS, BODY, "modelyard-operator", force=True)
    assert asked(server) == [("PATCH", "/apis/apps/v1/namespaces/default/deployments/a")] * 2
    queries = [request.query for request in server.requests]
    assert queries == [{"fieldManager": "modelyard-operator", "force": each} for each in ("false", "true")]
    assert server.requests[0].headers["content-type"] == "application/apply-patch+yaml"
    assert json.loads(server.requests[0].body) == {"apiVersion": "apps/v1", "kind": "Deployment", **BODY}


async def test_replicas_are_changed_through_the_subresource() -> None:
    server = ScriptedServer(always=lambda _: answering(200, BODY))
    async with connected(server) as client:
        await client.patch(DEPLOYMENTS, "default", "a", {"spec": {"replicas": 3}}, subresource="scale")
    assert asked(server) == [("PATCH", "/apis/apps/v1/namespaces/default/deployments/a/scale")]


async def test_an_eviction_that_a_budget_forbids_now_comes_later() -> None:
    refusal = answering(429, {"reason": "TooManyRequests", "message": "would violate the budget"})
    server = ScriptedServer(faults=[answering(201, {}), refusal, refusal, refusal, answering(404)])
    async with connected(server) as client:
        await client.evict("default", "a")
        with pytest.raises(RetryLater, match="pod default/a: would violate the budget"):
            await client.evict("default", "a")
        await client.evict("default", "a")
    assert asked(server)[0] == ("POST", "/api/v1/namespaces/default/pods/a/eviction")
    assert json.loads(server.requests[0].body)["kind"] == "Eviction"


class Lost(RetryLater):
    """The lease is."""


async def test_what_may_change_something_asks_the_guard_whenever_it_is_sent() -> None:
    holds = True

    def guard() -> None:
        if not holds:
            raise Lost("another one leads")

    def losing(_request: Request) -> Any:
        nonlocal holds
        holds = False
        return answering(503)

    server = ScriptedServer(always=lambda _: answering(200, BODY))
    async with connected(server, guard=guard) as client:
        await client.create(CONFIGMAPS, BODY)
        server.always = losing
        with pytest.raises(Lost, match="another one leads"):
            await client.create(CONFIGMAPS, BODY)
        server.always = lambda _: answering(200, BODY)
        writes = (
            client.create(CONFIGMAPS, BODY),
            client.replace_status(MODELSERVICES, BODY),
            client.patch(CONFIGMAPS, "default", "a", {}),
            client.apply(CONFIGMAPS, BODY, "m"),
            client.evict("default", "a"),
            client.delete(CONFIGMAPS, "default", "a"),
        )
        for write in writes:
            with pytest.raises(Lost, match="another one leads"):
                await write
        await client.get(CONFIGMAPS, "default", "a")
    assert [method for method, _ in asked(server)] == ["POST", "POST", "GET"]


async def test_the_guard_is_asked_when_there_is_a_connection_and_not_earlier() -> None:
    asked: list[str] = []
    server = ScriptedServer(always=lambda _: answering(200, BODY))
    async with connected(server, guard=lambda: asked.append("asked")) as client:
        await server.stop()
        with pytest.raises(RetryLater, match="cannot be reached"):
            await client.create(CONFIGMAPS, BODY)
        assert asked == []
        await server.start()
        await client.create(CONFIGMAPS, BODY)
        assert asked == ["asked"]


@pytest.mark.parametrize("code", [429, 502, 503, 504])
async def test_what_may_pass_is_asked_again(code: int) -> None:
    server = ScriptedServer(faults=[answering(code), answering(code, Retry_After="soon"), answering(200, BODY)])
    async with connected(server) as client:
        assert await client.create(CONFIGMAPS, BODY) == BODY
    assert len(server.requests) == 3


async def test_a_lost_connection_is_made_again() -> None:
    server = ScriptedServer(faults=[resetting, silence, answering(200, BODY)])
    async with connected(server, timeout=0.3) as client:
        assert await client.get(CONFIGMAPS, "default", "a") == BODY
    assert len(server.requests) == 3


async def test_the_pause_that_the_server_asks_for_is_kept() -> None:
    server = ScriptedServer(faults=[answering(429, Retry_After="1"), answering(200, BODY)])
    async with connected(server) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.get(CONFIGMAPS, "default", "a")
        assert loop.time() - began >= 0.99


async def test_attempts_end_and_what_cannot_be_reached_is_named() -> None:
    server = ScriptedServer(always=lambda _: answering(503, {"reason": "ServiceUnavailable", "message": "overloaded"}))
    async with connected(server) as client:
        with pytest.raises(ApiError, match="overloaded") as caught:
            await client.get(CONFIGMAPS, "default", "a")
        assert (caught.value.status, caught.value.reason) == (503, "ServiceUnavailable")
        assert len(server.requests) == 3
        server.always = lambda _: silence
        client._timeout = 0.05
        with pytest.raises(RetryLater, match=f"{client.config.server} cannot be reached: TimeoutError"):
            await client.get(CONFIGMAPS, "default", "a")
        await server.stop()
        with pytest.raises(RetryLater, match=f"{client.config.server} cannot be reached: Cannot connect"):
            await client.get(CONFIGMAPS, "default", "a")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422, 500, 507])
async def test_a_refusal_is_not_asked_again(code: int) -> None:
    server = ScriptedServer(always=lambda _: answering(code, {"reason": "Because", "message": "no"}))
    async with connected(server) as client:
        with pytest.raises(ApiError, match="no") as caught:
            await client.create(CONFIGMAPS, BODY)
    assert (caught.value.status, caught.value.reason, caught.value.causes) == (code, "Because", ())
    assert len(server.requests) == 1


async def test_an_invalid_object_has_its_causes() -> None:
    causes = [{"field": "spec.replicas", "message": "must not be negative"}, "odd", {"field": "spec.model"}]
    answer = {"reason": "Invalid", "message": "Invalid value", "details": {"causes": causes}}
    server = ScriptedServer(faults=[answering(422, answer), answering(422, {**answer, "details": {"causes": 5}})])
    async with connected(server) as client:
        with pytest.raises(ApiError) as caught:
            await client.create(MODELSERVICES, BODY)
        assert caught.value.causes == (("spec.replicas", "must not be negative"), ("spec.model", ""))
        with pytest.raises(ApiError) as caught:
            await client.create(MODELSERVICES, BODY)
        assert caught.value.causes == ()


@pytest.mark.parametrize("body", [b"", b"<html>nope</html>", b"[1]", b"[" * 100_000, b"x" * (2 * 2**20)])
async def test_a_refusal_of_some_proxy_is_told_as_far_as_possible(body: bytes) -> None:
    server = ScriptedServer(faults=[answering(403, body)])
    async with connected(server) as client:
        with pytest.raises(ApiError, match="the API server answered 403 Scripted"):
            await client.get(CONFIGMAPS, "default", "a")


async def test_a_long_refusal_arrives_whole() -> None:
    server = ScriptedServer(faults=[answering(422, {"reason": "Invalid", "message": "x" * 500_000})])
    async with connected(server) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(CONFIGMAPS, "default", "a")
    assert len(caught.value.message) == 500_000


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"[" * 100_000, b""])
async def test_an_answer_that_is_not_json_may_be_an_accident(body: bytes) -> None:
    async with connected(ScriptedServer(faults=[answering(200, body)])) as client:
        with pytest.raises(RetryLater, match=r"answered GET /api/v1/.* not JSON"):
            await client.get(CONFIGMAPS, "default", "a")


async def test_an_answer_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_client, "_MAX_ANSWER_BYTES", 1000)
    async with connected(ScriptedServer(faults=[answering(200, {"x": "y" * 2000}), answering(200, [])])) as client:
        with pytest.raises(UserError, match="more than 1000 bytes"):
            await client.get(CONFIGMAPS, "default", "a")
        with pytest.raises(UserError, match="no object"):
            await client.get(CONFIGMAPS, "default", "a")


async def test_a_token_follows_no_redirect() -> None:
    elsewhere = ScriptedServer(always=lambda _: answering(200, BODY))
    server = ScriptedServer(token="s3cret")
    async with elsewhere, connected(server) as client:
        server.always = lambda _: answering(307, Location=f"http://127.0.0.1:{elsewhere.port}/")
        with pytest.raises(UserError, match="the API server redirects to 'http://127"):
            await client.get(CONFIGMAPS, "default", "a")
        with pytest.raises(UserError, match="redirects"):
            await anext(client.watch(CONFIGMAPS, None, {}, idle=5))
    assert (len(server.requests), elsewhere.requests) == (2, [])


@pytest.mark.parametrize(("code", "reason"), [(409, "Conflict"), (404, "NotFound")])
async def test_a_status_of_an_object_that_changed_is_decided_again(code: int, reason: str) -> None:
    async with connected(ScriptedServer(faults=[answering(code, {"reason": reason})])) as client:
        with pytest.raises(RetryLater, match="ModelService a changed in the meantime"):
            await client.replace_status(MODELSERVICES, BODY)


async def test_an_expired_token_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")

    def renewing(request: Request) -> Any:
        if request.headers["authorization"] == "Bearer new":
            return answering(200, BODY)
        file.write_text("new\n")
        return answering(401)

    server = ScriptedServer(always=renewing)
    async with server, Client(replace(server.config, token_file=file), pause=0.001) as client:
        assert await client.get(CONFIGMAPS, "default", "a") == BODY
        assert len(server.requests) == 2
        for content in (b"one\ntwo", b"\xff\xfe", b"caf\xc3\xa9"):
            file.write_bytes(content)
            with pytest.raises(UserError, match="must hold one token and nothing else"):
                await client.get(CONFIGMAPS, "default", "a")
        file.unlink()
        with pytest.raises(UserError, match=f"{file} cannot be read: No such file"):
            await client.get(CONFIGMAPS, "default", "a")


async def test_a_request_that_is_cancelled_leaves_nothing() -> None:
    server = ScriptedServer(always=lambda _: silence)
    async with connected(server) as client:
        asking = asyncio.ensure_future(client.get(CONFIGMAPS, "default", "a"))
        await until(lambda: bool(server.requests))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: not server.peers)
