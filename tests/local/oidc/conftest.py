"""A real gateway in front of one model, and a real OpenID provider."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from gateway_testing import becomes_true, upstream
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.access import Access
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Backend, Endpoints, Route
from modelyard.control.ir.values import Key
from oidc_testing import RealProvider

IRIS = Key(kind="ModelService", namespace="default", name="iris")


class Gate:
    """The gateway with the model `iris`."""

    def __init__(self, gateway: EnvoyGateway, address: str, caller: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self._address = address
        self._caller = caller

    async def hold(self, platform: Platform, access: Access) -> None:
        """Let this hold. The platform may take a moment longer than the route."""
        self.gateway.configure(platform)
        route = Route(owner=IRIS, ids=("iris",), backends=(Backend(unit="u", weight=100),), access=access)
        await self.gateway.publish((route,), (Endpoints(unit="u", addresses=(self._address,)),))
        await becomes_true(lambda: self.gateway.observe(IRIS).acknowledged == route)

    async def call(self, token: str = "", header: str = "Authorization") -> int:
        """The status of an inference."""
        value = f"Bearer {token}" if header == "Authorization" else token
        headers = {header: value} if token else {}
        async with self._caller.post(f"{self.gateway.url}/v2/models/iris/infer", data=b"{}", headers=headers) as answer:
            await answer.read()
            return answer.status

    async def becomes(self, token: str, status: int, seconds: float = 30.0) -> None:
        """Wait until a call is answered so."""
        async with asyncio.timeout(seconds):
            while await self.call(token) != status:  # noqa: ASYNC110  it is Envoy's fact
                await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def provider() -> Iterator[RealProvider]:
    """One for all tests that only ask for tokens."""
    with RealProvider() as one:
        yield one


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    run = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
    try:
        async with AsyncExitStack() as stack:
            behind = await stack.enter_async_context(upstream(run / "u.sock", "u"))
            gateway = EnvoyGateway(host="127.0.0.1", port=0, run=run, logs=tmp_path, clock=SystemClock())
            await stack.enter_async_context(gateway)
            caller = await stack.enter_async_context(aiohttp.ClientSession())
            yield Gate(gateway, behind.address, caller)
    finally:
        shutil.rmtree(run)
