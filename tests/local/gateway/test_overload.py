"""What is refused so that the gateway and its models last: tries beyond the budget, and requests without memory."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from gateway_testing import becomes_true
from modelyard.control.gateway import process
from modelyard.control.ir.route import Endpoints
from modelyard.testing.gateway_suite import IRIS, acknowledged, route

from .conftest import EnvoyRig, becomes, envoy_rig

CALLERS = 300
BUDGET = 256
"""Tries under way at one time for one model, besides the first ones; a fifth of its requests where that is more."""
RETRIES = 2
HEAP_MIB = 96
KEPT_BYTES = 2**20 - 1000
"""Of a request that is kept in memory, since it may be tried again."""
INFER = "/v2/models/iris/infer"


class Failing:
    """A replica that takes requests and breaks their connections: when told, or at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tries = 0
        self.at_once = False
        self._held: set[asyncio.StreamWriter] = set()

    @property
    def held(self) -> int:
        return len(self._held)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, str(self.path), backlog=1024)
        try:
            yield
        finally:
            server.close()
            self.fail()

    def fail(self) -> None:
        for writer in self._held:
            writer.transport.abort()
        self._held.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.tries += 1
            if self.at_once:
                writer.transport.abort()
            else:
                self._held.add(writer)


async def test_of_many_requests_that_fail_at_once_no_more_are_tried_again_than_the_budget_says(rig: EnvoyRig) -> None:
    failing = Failing(rig.folder / "failing.sock")
    wanted = replace(route(IRIS, "u"), retries=RETRIES)
    statuses: Counter[int] = Counter()

    async def call(callers: aiohttp.ClientSession) -> None:
        async with callers.post(f"{rig.gateway.url}{INFER}", data=b"{}") as answer:
            statuses[answer.status] += 1

    connector = aiohttp.TCPConnector(limit=0)
    async with failing.serving(), aiohttp.ClientSession(connector=connector) as callers, asyncio.TaskGroup() as group:
        await rig.gateway.publish((wanted,), (Endpoints(unit="u", addresses=(f"unix:{failing.path}",)),))
        await acknowledged(rig.gateway, wanted)
        for _ in range(CALLERS):
            group.create_task(call(callers))
        await becomes_true(lambda: failing.held == CALLERS)
        failing.fail()
        await becomes_true(lambda: failing.held + statuses[503] == CALLERS)
        assert abs(failing.held - BUDGET) <= 2, "each of Envoy's threads looks before it counts"
        failing.at_once = True
        failing.fail()
    assert statuses == {503: CALLERS}
    assert failing.tries <= CALLERS + RETRIES * BUDGET + 4


@pytest.fixture
async def small(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EnvoyRig]:
    """With little memory."""
    monkeypatch.setattr(process, "_LEAST_HEAP_BYTES", HEAP_MIB * 2**20)
    monkeypatch.setattr(process, "_memory_bytes", lambda: 0)
    async with envoy_rig(run_folder, tmp_path) as found:
        yield found


async def test_without_memory_nobody_new_is_answered_and_who_was_let_in_is(small: EnvoyRig) -> None:
    wanted = replace(route(IRIS, "a"), retries=1)  # requests that may be tried again are kept
    await small.gateway.publish((wanted,), (await small.endpoints("a"),))
    await acknowledged(small.gateway, wanted)
    small.upstreams["a"].hold()

    async def one_more() -> tuple[int, Any, dict[str, str]]:
        return await small.request("GET", "/v2/health/ready")

    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(small.request("POST", INFER, data=bytes(KEPT_BYTES))) for _ in range(HEAP_MIB)]
        try:
            status, answer, headers = await becomes(one_more, lambda found: found[0] != 200)
        finally:
            small.upstreams["a"].release()
        assert (status, headers.get("retry-after")) == (503, "1"), answer
        assert answer == {"error": "the gateway is out of connections or memory; try again"}
    told = {each.result()[0] for each in calls}
    assert 200 in told <= {200, 503}, "who was let in is answered, however many were"
    await becomes(one_more, lambda found: found[0] == 200)
