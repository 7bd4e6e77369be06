"""A real gateway with upstreams."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from gateway_testing import Upstream, upstream
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.route import Endpoints


class EnvoyRig:
    """The gateway, its upstreams by unit, and a caller."""

    def __init__(
        self, gateway: EnvoyGateway, folder: Path, stack: AsyncExitStack, caller: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.folder = folder
        self.stack = stack
        self.caller = caller
        self.upstreams: dict[str, Upstream] = {}

    async def endpoints(self, unit: str) -> Endpoints:
        if unit not in self.upstreams:
            one = upstream(self.folder / f"{unit}.sock", unit)
            self.upstreams[unit] = await self.stack.enter_async_context(one)
        return Endpoints(unit=unit, addresses=(self.upstreams[unit].address,))

    async def ask(self, public_id: str) -> tuple[int, str]:
        status, body, _ = await self.request("POST", f"/v2/models/{public_id}/infer", data=b"{}")
        return status, body["unit"] if status == 200 else body["error"]

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any, dict[str, str]]:
        """(status, the JSON body, headers in lower case); the path is sent as it is written."""
        url = yarl.URL(self.gateway.url + path, encoded=True)
        async with self.caller.request(method, url, **options) as answer:
            text = await answer.text()
            return answer.status, json.loads(text), {key.lower(): value for key, value in answer.headers.items()}


@pytest.fixture
def run_folder() -> Iterator[Path]:
    """A short path: sockets have 107 bytes, and pytest's folders are long."""
    folder = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def rig(run_folder: Path, tmp_path: Path) -> AsyncIterator[EnvoyRig]:
    async with AsyncExitStack() as stack:
        # The gateway ends before the upstreams do, as in the server.
        ups = await stack.enter_async_context(AsyncExitStack())
        caller = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        gateway = EnvoyGateway(host="127.0.0.1", port=0, run=run_folder, logs=tmp_path, clock=SystemClock())
        await stack.enter_async_context(gateway)
        yield EnvoyRig(gateway, run_folder, ups, caller)
        await caller.close()
        await asyncio.sleep(0)
