"""A revision that gets copies asks the one that serves: by a way that is there for it alone, with a real Envoy."""

import asyncio
import contextlib
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from msgspec.structs import replace

import front_testing
from collisions_testing import header_for
from front_testing import Front
from gateway_testing import Upstream, becomes_true, upstream
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.access import OPEN, Access
from modelyard.control.ir.route import Backend, Endpoints, Mirror, Route
from modelyard.control.ir.unit_secret import unit_secret
from modelyard.runtime.front.asking import Answer, Unanswered, ask
from modelyard.testing.gateway_suite import IRIS, acknowledged
from modelyard.wire.report import ShadowReport
from yard_testing import write_onnx

from .conftest import LAPTOP, becomes

SERVING, SHADOW, LIGHT = "iris-svc-00001.default", "iris-svc-00002.default", "iris-svc-00003.default"
MIRRORED = Route(
    owner=IRIS,
    ids=("iris.default", "iris"),
    backends=(Backend(unit=SERVING, weight=80), Backend(unit=LIGHT, weight=20)),
    mirror=Mirror(unit=SHADOW, percent=100, compared_percent=100),
    access=OPEN,
)
ALONE = replace(MIRRORED, backends=(Backend(unit=SERVING),))
INFER = "/v2/models/iris/infer"
secret = partial(unit_secret, b"k" * 32)


class Yardstick:
    """A gateway with secrets, and whoever its routes name."""

    def __init__(self, gateway: EnvoyGateway, run: Path, caller: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.run = run
        self.caller = caller

    @property
    def socket(self) -> Path:
        return self.run / "shadow.sock"

    async def serve(self, route: Route, **addresses: str) -> None:
        """addresses: by unit."""
        endpoints = tuple(Endpoints(unit=unit, addresses=(address,)) for unit, address in addresses.items())
        await self.gateway.publish((route,), endpoints)
        await acknowledged(self.gateway, route)

    async def ask(self, bearing: str, path: str = INFER, method: str = "POST", more: str = "") -> Answer:
        """What is answered to who shows a secret; 0 where nobody listens."""
        head = f"{method} {path} HTTP/1.1\r\nhost: shadow\r\nx-modelyard-gateway: {bearing}\r\n{more}"
        try:
            return await ask(str(self.socket), head.encode(), b"{}", most_bytes=10_000, seconds=20)
        except Unanswered:
            return Answer(0, b"")

    async def becomes(self, status: int) -> None:
        """Until the shadow's question is answered so."""
        await becomes(lambda: self.ask(secret(SHADOW)), lambda found: found.status == status, 20)


@pytest.fixture
async def yard(run_folder: Path, tmp_path: Path) -> AsyncIterator[Yardstick]:
    gateway = EnvoyGateway(host="127.0.0.1", port=0, run=run_folder, logs=tmp_path, clock=SystemClock(), secret=secret)
    gateway.configure(LAPTOP)
    async with gateway, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as caller:
        yield Yardstick(gateway, run_folder, caller)


@pytest.fixture
async def units(run_folder: Path) -> AsyncIterator[dict[str, Upstream]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {
            unit: await stack.enter_async_context(upstream(run_folder / f"{unit}.sock", unit))
            for unit in (SERVING, SHADOW, LIGHT)
        }


def addresses(units: dict[str, Upstream]) -> dict[str, str]:
    return {unit: each.address for unit, each in units.items()}


async def test_the_shadow_reaches_the_heaviest_that_serves_with_that_ones_secret(
    yard: Yardstick, units: dict[str, Upstream]
) -> None:
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)
    for _ in range(20):
        status, body = await yard.ask(secret(SHADOW))
        assert (status, json.loads(body)["unit"]) == (200, SERVING)
    assert (units[SHADOW].requests, units[LIGHT].requests) == (0, 0), "nothing is copied or shared"
    head = units[SERVING].heads[-1]
    assert f"x-modelyard-gateway: {secret(SERVING)}\r\n" in head
    assert secret(SHADOW) not in head
    assert stat.S_IMODE(yard.socket.stat().st_mode) == 0o600


async def test_nobody_else_is_answered_and_nothing_else(yard: Yardstick, units: dict[str, Upstream]) -> None:
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)
    asked = units[SERVING].requests
    own = secret(SHADOW)
    for bearing in ("", secret(SERVING), secret(LIGHT), own[:-1], f"{own}, {own}", "~"):
        assert (await yard.ask(bearing)).status == 403, bearing
    for path in (
        "/v2",
        "/v2/models/iris",
        "/v2/models/iris/ready",
        "/v2/models/rose/infer",
        "/v2/models/iris/versions/1/infer",
        "/v2/models/iris/infer/more",
        "/v2/models/iris/../rose/infer",
        "/metrics",
        "/v1/models/iris/infer",
        "/inference.GRPCInferenceService/ModelInfer/iris",
    ):
        assert (await yard.ask(secret(SHADOW), path)).status == 403, path
    assert (await yard.ask(secret(SHADOW), method="GET")).status == 403
    assert (await yard.ask(secret(SHADOW), "/v2/models/iris%2Finfer")).status in (400, 403)
    twice = f"x-modelyard-gateway: {secret(SHADOW)}\r\n"
    assert (await yard.ask(secret(LIGHT), more=twice)).status == 403
    assert units[SERVING].requests == asked
    assert json.loads((await yard.ask("nobody")).body).keys() == {"error"}


async def test_a_computed_key_opens_no_public_scope(yard: Yardstick, units: dict[str, Upstream]) -> None:
    private = replace(MIRRORED, access=Access())
    await yard.serve(private, **addresses(units))
    await yard.becomes(200)
    asked = units[SERVING].requests
    for public_id in ("iris", "iris.default", "ready"):
        answer = await yard.ask(header_for(public_id, "v2"), f"/v2/models/{public_id}/infer")
        assert (answer.status, json.loads(answer.body).keys()) == (403, {"error"}), public_id
    assert (await yard.ask(header_for("ready", "v2"), "/v2/health/ready", "GET")).status == 403
    assert units[SERVING].requests == asked


async def test_its_secret_opens_nothing_at_the_public_listener(yard: Yardstick, units: dict[str, Upstream]) -> None:
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)
    for path in (f"/v2/models/{secret(SHADOW)}/infer", "/v2/models/~shadow.default.iris/infer"):
        headers = {"x-modelyard-gateway": secret(SHADOW)}
        async with yard.caller.post(f"{yard.gateway.url}{path}", data=b"{}", headers=headers) as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    "after",
    [
        replace(MIRRORED, mirror=None),
        replace(MIRRORED, mirror=Mirror(unit=SHADOW, percent=100, compared_percent=0)),
        replace(MIRRORED, backends=(Backend(unit=SHADOW),), mirror=None),
    ],
    ids=["no mirror", "nothing compared", "it serves itself"],
)
async def test_the_way_is_closed_with_the_mirror_for_who_is_connected_too(
    yard: Yardstick, units: dict[str, Upstream], after: Route
) -> None:
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)
    reader, writer = await asyncio.open_unix_connection(str(yard.socket))
    await yard.serve(after, **addresses(units))
    await yard.becomes(0)
    request = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-modelyard-gateway: {secret(SHADOW)}\r\ncontent-length: 0\r\n\r\n"
    asked = units[SERVING].requests
    with contextlib.suppress(OSError):
        writer.write(request.encode())
        assert b" 200 " not in await asyncio.wait_for(reader.readline(), 20)
    assert units[SERVING].requests == asked
    writer.transport.abort()
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)


async def test_the_way_comes_back_with_envoy(yard: Yardstick, units: dict[str, Upstream]) -> None:
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)
    os.kill(yard.gateway.pid, signal.SIGKILL)
    await yard.becomes(200)


async def test_endpoints_that_move_are_followed(yard: Yardstick, units: dict[str, Upstream]) -> None:
    await yard.serve(MIRRORED, **addresses(units))
    await yard.becomes(200)
    moved = {**addresses(units), SERVING: units[LIGHT].address}
    await yard.serve(MIRRORED, **moved)

    async def moves() -> bool:
        status, body = await yard.ask(secret(SHADOW))
        return status == 200 and json.loads(body)["unit"] == LIGHT

    await becomes(moves, bool)


async def test_questions_count_for_nobody_and_wait_for_nobody(yard: Yardstick, units: dict[str, Upstream]) -> None:
    await yard.serve(replace(MIRRORED, max_concurrency=1), **addresses(units))
    await yard.becomes(200)
    async with yard.caller.post(f"{yard.gateway.url}{INFER}", data=b"{}") as answer:
        assert answer.status == 200
    await becomes_true(lambda: sum(each.requests for each in yard.gateway.load().values()) >= 2)
    for _ in range(10):
        assert (await yard.ask(secret(SHADOW))).status == 200
    units[SERVING].hold()
    asking = [asyncio.create_task(yard.ask(secret(SHADOW))) for _ in range(60)]
    try:
        await becomes_true(lambda: sum(each.done() for each in asking) >= 20, 10)
        assert {each.result().status for each in asking if each.done()} == {503}
    finally:
        units[SERVING].release()
        await asyncio.gather(*asking)
    assert [each.result().status for each in asking].count(200) >= 16
    said = await yard.gateway.metrics()
    assert "shadow" not in said
    assert sum(each.answered for each in yard.gateway.load().values()) == 2


# -- with real fronts


@pytest.fixture
def folders(run_folder: Path) -> tuple[Path, Path]:
    made = run_folder / "1", run_folder / "2"
    for each in made:
        each.mkdir()
    return made


def front(folder: Path, unit: str, plus: float, yard: Yardstick | None = None) -> Front:
    write_onnx(folder / "model.onnx", plus)
    version = unit[len("iris-svc-0000")]
    shadow = str(yard.socket) if yard else ""
    models = {"iris": folder / "model.onnx"}
    return Front(folder, models, gateway_secret=secret(unit), shadow=shadow, version=version)


def request(*numbers: float) -> bytes:
    return front_testing.body(list(numbers), name="X", shape=(len(numbers) // 2, 2))


async def answers(yard: Yardstick, count: int, *numbers: float) -> list[list[float]]:
    found = []
    for _ in range(count):
        async with yard.caller.post(f"{yard.gateway.url}{INFER}", data=request(*numbers)) as answer:
            assert answer.status == 200, await answer.text()
            found.append((await answer.json())["outputs"][0]["data"])
    return found


def compared(one: Front) -> ShadowReport:
    report = one.report
    return (report.serve.shadow if report and report.serve else None) or ShadowReport()


async def compares(one: Front, total: int) -> ShadowReport:
    """Once so many copies were looked at."""

    def looked_at() -> int:
        found = compared(one)
        return found.compared + found.skipped + found.shadow_failed + found.serving_failed + found.both_failed

    await becomes_true(lambda: looked_at() >= total)
    return compared(one)


@pytest.mark.parametrize(("plus", "apart"), [(1.25, 0.25), (1.0, 0.0)], ids=["another model", "an equal model"])
async def test_what_is_different_is_found_exactly(
    yard: Yardstick, folders: tuple[Path, Path], plus: float, apart: float
) -> None:
    with front(folders[0], SERVING, 1.0) as serving, front(folders[1], SHADOW, plus, yard) as shadow:
        await yard.serve(ALONE, **{SERVING: f"unix:{serving.socket}", SHADOW: f"unix:{shadow.socket}"})
        await yard.becomes(400)
        assert await answers(yard, 20, 1.0, 3.0) == [[2.0, 4.0]] * 20
        found = await compares(shadow, 20)
        assert found.compared >= 5  # more than a few at one time are skipped
        assert found == ShadowReport(
            compared=found.compared,
            skipped=20 - found.compared,
            different=found.compared if apart else 0,
            largest_difference=apart,
            largest_relative_difference=apart / 2.25,
        )
        text = front_testing.ask_once(shadow, front_testing.get("/metrics")).content.decode()
        assert f'shadow_largest_difference{{model="iris",between="answers",kind="absolute"}} {apart:g}\n' in text
        assert compared(serving) == ShadowReport()
        assert "Traceback" not in serving.log + shadow.log
        assert secret(SHADOW) not in shadow.log


async def test_requests_that_only_one_of_them_can_answer_are_told_apart(
    yard: Yardstick, folders: tuple[Path, Path]
) -> None:
    front_testing.lookup(folders[1] / "lookup.onnx")
    models = {"iris": folders[1] / "lookup.onnx"}
    lookup = Front(folders[1], models, gateway_secret=secret(SHADOW), shadow=str(yard.socket))
    with front(folders[0], SERVING, 1.0) as serving, lookup as shadow:
        await yard.serve(ALONE, **{SERVING: f"unix:{serving.socket}", SHADOW: f"unix:{shadow.socket}"})
        await yard.becomes(400)
        await answers(yard, 3, 1.0, 3.0)
        assert (await compares(shadow, 3)).shadow_failed == 3
        other = front_testing.body([0], datatype="INT64", shape=(1,))
        for content in (other, b"not json"):
            async with yard.caller.post(f"{yard.gateway.url}{INFER}", data=content) as answer:
                assert answer.status == 400
        found = await compares(shadow, 5)
        assert (found.shadow_failed, found.serving_failed, found.both_failed) == (3, 1, 1)


@pytest.mark.timeout(120)
async def test_callers_feel_nothing_of_a_shadow_that_is_slow_crashes_or_stops_in_the_middle(
    yard: Yardstick, folders: tuple[Path, Path]
) -> None:
    with front(folders[0], SERVING, 1.0) as serving, front(folders[1], SHADOW, 2.0, yard) as shadow:
        await yard.serve(ALONE, **{SERVING: f"unix:{serving.socket}", SHADOW: f"unix:{shadow.socket}"})
        await yard.becomes(400)
        usual = [[2.0, 4.0]] * 30
        assert await answers(yard, 30, 1.0, 3.0) == usual
        await compares(shadow, 30)

        shadow.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert await answers(yard, 30, 1.0, 3.0) == usual
        assert time.monotonic() - began < 20, "nobody waits for a copy"
        shadow.process.send_signal(signal.SIGCONT)

        shadow.process.kill()
        assert await answers(yard, 30, 1.0, 3.0) == usual
        shadow.process.wait()
        assert await answers(yard, 30, 1.0, 3.0) == usual

        shadow.process = shadow.start()
        await asyncio.to_thread(front_testing.until, shadow._serving)
        assert await answers(yard, 30, 1.0, 3.0) == usual
        assert (await compares(shadow, 20)).different >= 1
        burst = [answers(yard, 10, *np.arange(2000.0).tolist()) for _ in range(8)]
        await asyncio.gather(*burst)
        assert shadow.stop() == 0
        assert await answers(yard, 30, 1.0, 3.0) == usual


async def test_the_shadow_goes_on_while_nobody_can_be_asked(yard: Yardstick, folders: tuple[Path, Path]) -> None:
    with front(folders[1], SHADOW, 2.0, yard) as shadow:
        bearing = f"x-modelyard-gateway: {secret(SHADOW)}\r\nx-modelyard-shadow: 100\r\n"
        with shadow.client() as client:
            for _ in range(3):
                assert client.ask(front_testing.post(INFER, request(1.0, 3.0), bearing)).status == 200
        await becomes_true(lambda: compared(shadow) == ShadowReport(skipped=3))
        forged = "x-modelyard-shadow: 100\r\n"
        assert front_testing.ask_once(shadow, front_testing.post(INFER, request(1.0, 3.0), forged)).status == 403
        assert shadow.log.count("an answer is not compared: it cannot be reached") == 1
