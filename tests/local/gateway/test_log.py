"""What the gateway writes about requests, and the ids that it gives them."""

import asyncio
import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import tritonclient.grpc.aio as aio

from gateway_testing import becomes_true
from grpc_testing import Served
from modelyard.control.ir.access import Access, Caller, Claim
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Backend, Route
from modelyard.testing.gateway_suite import IRIS, acknowledged, route
from tokens_testing import issuer, token

from .conftest import LAPTOP, EnvoyRig

ANA = Caller(issuer="corp", claims=(Claim(path=("sub",), value="ana"),))
ISSUERS = (
    issuer("modelyard"),
    issuer("corp", prefix="corp:"),
    issuer("mail", prefix='it\'s "50%":', username=("https://mail.example/name",), verified=("is", "verified")),
)


async def lines(log: Path, count: int, seconds: float = 10) -> list[dict[str, Any]]:
    """So many lines, as soon as they are there."""
    await becomes_true(lambda: len(told(log)) >= count, seconds)
    return told(log)


def told(log: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in log.read_text().splitlines()] if log.exists() else []


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
async def log(rig: EnvoyRig, tmp_path: Path) -> Path:
    """Of a gateway that serves iris; what was asked before it came up is out of the file."""
    await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, route(IRIS, "a"))
    path = tmp_path / "access.log"
    await lines(path, 1)
    path.write_text("")
    return path


async def test_a_line_tells_about_a_request_and_nothing_secret(rig: EnvoyRig, log: Path) -> None:
    headers = {"authorization": "Bearer hush", "user-agent": "u" * 200}
    await rig.request("POST", "/v2/models/iris/infer?token=hush", data=b"12345", headers=headers)
    (found,) = await lines(log, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found.pop("id"))
    assert 0 <= found.pop("upstreamMilliseconds") <= found.pop("milliseconds") < 5000
    assert found.pop("bytesSent") > 10
    assert found == {
        "method": "POST",
        "path": "/v2/models/iris/infer",
        "protocol": "HTTP/1.1",
        "model": "iris.default",
        "revision": "a",
        "status": 200,
        "flags": "-",
        "details": "via_upstream",
        "bytesReceived": 5,
        "attempts": 1,
        "agent": "u" * 80,
    }
    assert "hush" not in str(told(log))
    assert mode(log) == 0o600


async def test_answers_of_the_gateway_itself_are_written_too(rig: EnvoyRig, log: Path) -> None:
    await rig.request("GET", "/v2/models/nope/ready")
    await rig.request("GET", "/v2/models/iris/ready", headers={"host": "evil.example"})
    await rig.gateway.publish((route(IRIS, unavailable="off"),), ())
    await acknowledged(rig.gateway, route(IRIS, unavailable="off"))
    await rig.request("GET", "/v2/models/iris/ready")
    unknown, foreign, off = await lines(log, 3)
    assert (unknown["status"], unknown["flags"], unknown.get("model")) == (404, "NR", None)
    assert (foreign["status"], foreign["model"]) == (403, "iris.default")
    assert foreign["details"].startswith("rbac_access_denied")
    assert (off["status"], off["model"], off.get("revision")) == (503, "iris.default", None)


async def test_a_call_over_grpc_tells_its_model_and_its_own_status(rig: EnvoyRig, log: Path, run_folder: Path) -> None:
    served = Served(rig.gateway)
    async with aio.InferenceServerClient(served.address) as client:
        with pytest.raises(Exception, match="no model of this name"):
            await client.is_model_ready("nope")
    (found,) = await lines(log, 1)
    assert (found["protocol"], found["method"], found["status"], found["grpcStatus"]) == ("HTTP/2", "POST", 200, 5)
    assert found["path"] == "/inference.GRPCInferenceService/ModelReady/nope"


async def test_the_caller_is_written_as_roles_name_it(rig: EnvoyRig, log: Path) -> None:
    mine = Access(authentication="required", callers=(ANA,))
    guarded = Route(owner=IRIS, ids=("iris.default", "iris"), backends=(Backend(unit="a"),), access=mine)
    rig.gateway.configure(Platform(issuers=ISSUERS))
    await rig.gateway.publish((guarded,), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, guarded)
    name, verified = "https://mail.example/name", {"is": {"verified": True}}
    bearers = [
        token("corp"),
        token("corp", sub='eve"\r\nx'),
        token("modelyard"),
        token("mail", **{name: "ana"}, **verified),
        token("mail", **{name: "ana"}, **{"is": {"verified": "true"}}),
        token("mail", **{name: "ana"}),
        token("corp", exp=1),
        "nonsense",
    ]
    answers = [
        (await rig.request("GET", "/v2/models/iris/ready", headers={"authorization": f"Bearer {each}"}))[0]
        for each in bearers
    ]
    assert answers[:2] == [200, 403]
    found = await lines(log, len(bearers))
    assert [each.get("user", "") for each in found] == [
        "corp:ana",
        'corp:eve"\r\nx',
        "ana",
        'it\'s "50%":ana',
        'it\'s "50%":(not verified) ana',
        'it\'s "50%":(not verified) ana',
        "",
        "",
    ]
    rig.gateway.configure(LAPTOP)


@pytest.mark.parametrize(
    ("sent", "kept"), [("order 17/b", "order 17/b"), ("x" * 500, "x" * 128), ('"{}\\', '"{}\\'), ("", None)]
)
async def test_an_id_of_the_caller_goes_everywhere_and_is_bounded(
    rig: EnvoyRig, log: Path, sent: str, kept: str | None
) -> None:
    _, body, headers = await rig.request("GET", "/v2/models/iris/echo", headers={"x-request-id": sent})
    answered = headers["x-request-id"]
    if kept is None:
        assert re.fullmatch(r"[0-9a-f-]{36}", answered)
    else:
        assert answered == kept
    assert f"x-request-id: {answered.lower()}\r\n" in body["head"]
    assert [each["id"] for each in await lines(log, 1)] == [answered]


async def test_answers_of_the_gateway_itself_tell_the_id_too(rig: EnvoyRig, log: Path) -> None:
    assert (await rig.request("GET", "/v2/models/nope", headers={"x-request-id": "mine"}))[2]["x-request-id"] == "mine"
    assert [each["id"] for each in await lines(log, 1)] == ["mine"]


async def test_a_full_file_is_replaced_and_no_line_is_lost(
    rig: EnvoyRig, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.gateway._log, "_largest", 500)
    former = log.with_name("access.log.1")
    await rig.request("GET", "/v2/models/iris/ready", headers={"x-request-id": "first"})
    await rig.request("GET", "/v2/models/iris/ready", headers={"x-request-id": "second"})
    await becomes_true(lambda: len(told(former)) == 2 and not told(log))
    monkeypatch.setattr(rig.gateway._log, "_largest", 2**20)
    await becomes_true(lambda: not rig.gateway._log._is_renamed)
    await rig.request("GET", "/v2/models/iris/ready", headers={"x-request-id": "third"})
    assert [each["id"] for each in await lines(log, 1)] == ["third"]
    assert [each["id"] for each in await lines(former, 2)] == ["first", "second"]
    assert [mode(each) for each in (log, former)] == [0o600, 0o600]
    assert {each.name for each in log.parent.glob("access*")} == {"access.log", "access.log.1"}


async def test_a_file_that_somebody_removes_comes_back(rig: EnvoyRig, log: Path) -> None:
    os.unlink(log)
    await becomes_true(lambda: log.exists() and not rig.gateway._log._is_renamed)
    await rig.request("GET", "/v2/models/iris/ready")
    assert (await lines(log, 1))[0]["status"] == 200
    assert mode(log) == 0o600


async def test_envoy_goes_on_with_the_file_after_it_was_killed(rig: EnvoyRig, log: Path) -> None:
    before = rig.gateway.pid
    rig.gateway._envoy.kill()
    await becomes_true(lambda: rig.gateway.pid not in (0, before))
    async with asyncio.timeout(20):
        while not await _answers(rig):  # noqa: ASYNC110  until connections are taken again
            await asyncio.sleep(0.05)
    assert "iris.default" in [each.get("model") for each in await lines(log, 1)]
    assert mode(log) == 0o600


async def _answers(rig: EnvoyRig) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        return (await rig.ask("iris"))[0] == 200
    return False
