"""A real gateway with upstreams."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import pytest
import yarl
from msgspec.structs import replace

import access_testing
import tokens_testing as tokens
from gateway_testing import Upstream, upstream
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.access import Access, Caller
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import Bearer, acknowledged, route

LAPTOP = Platform(authentication="none", local_only=True)


def bearing(token: str) -> dict[str, str]:
    """Headers."""
    return {"authorization": f"Bearer {token}"}


class EnvoyRig:
    """The gateway, its upstreams by unit, and a caller."""

    proxies = 1

    def __init__(
        self, gateway: EnvoyGateway, folder: Path, stack: AsyncExitStack, caller: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.folder = folder
        self.stack = stack
        self.caller = caller
        self.upstreams: dict[str, Upstream] = {}
        self.issuers = (tokens.issuer("corp"), tokens.issuer("other"))

    async def endpoints(self, unit: str) -> Endpoints:
        if unit not in self.upstreams:
            one = upstream(self.folder / f"{unit}.sock", unit)
            self.upstreams[unit] = await self.stack.enter_async_context(one)
        return Endpoints(unit=unit, addresses=(self.upstreams[unit].address,))

    async def ask(self, public_id: str, bearer: Bearer | None = None) -> tuple[int, str]:
        headers = {} if bearer is None else bearing(tokens.token(bearer.issuer, **bearer.claims))
        status, body, _ = await self.request("POST", f"/v2/models/{public_id}/infer", data=b"{}", headers=headers)
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


T = TypeVar("T")
_PROBES = count(1)


async def becomes(asked: Callable[[], Awaitable[T]], holds: Callable[[T], bool], seconds: float = 10.0) -> T:
    """Ask until the answer is as wanted; the assertion shows the latest."""
    deadline = time.monotonic() + seconds
    while not holds(found := await asked()):
        assert time.monotonic() < deadline, f"still {found} after {seconds} s"
        await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def envoy_rig(run: Path, logs: Path) -> AsyncIterator[EnvoyRig]:
    """While the block runs."""
    async with AsyncExitStack() as stack:
        # The gateway ends before the upstreams do, as in the server.
        ups = await stack.enter_async_context(AsyncExitStack())
        caller = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        gateway = EnvoyGateway(host="127.0.0.1", port=0, run=run, logs=logs, clock=SystemClock())
        gateway.configure(LAPTOP)
        await stack.enter_async_context(gateway)
        yield EnvoyRig(gateway, run, ups, caller)
        await caller.close()
        await asyncio.sleep(0)


@pytest.fixture
async def rig(run_folder: Path, tmp_path: Path) -> AsyncIterator[EnvoyRig]:
    async with envoy_rig(run_folder, tmp_path) as found:
        yield found


async def stand(rig: EnvoyRig, platform: Platform) -> None:
    """Make a platform hold, and wait for an effect that only it has: another probe is believed each time."""
    name = f"probe-{next(_PROBES)}"
    probe = Key(kind="ModelService", namespace="probes", name=name)
    rig.gateway.configure(replace(platform, issuers=(*platform.issuers, tokens.issuer(name))))
    wanted = route(probe, "probe", access=Access(callers=(Caller(issuer=name),)))
    await rig.gateway.publish((wanted,), (await rig.endpoints("probe"),))
    await acknowledged(rig.gateway, wanted)
    await becomes(partial(rig.ask, f"{name}.probes", Bearer(name, {})), lambda answer: answer[0] == 200)


async def serve(rig: EnvoyRig, accesses: list[Access]) -> list[str]:
    """Models with these rules, once they are in force -> their public ids."""
    keys = [Key(kind="ModelService", namespace="random", name=f"m{number}") for number in range(len(accesses))]
    routes = tuple(route(key, "a", access=access) for key, access in zip(keys, accesses, strict=True))
    await rig.gateway.publish(routes, (await rig.endpoints("a"),))
    for each in routes:
        await acknowledged(rig.gateway, each)
    return [each.ids[0] for each in routes]


class Lasting(NamedTuple):
    """A rig that outlives the examples of a property, and the loop on which it runs."""

    loop: asyncio.AbstractEventLoop
    rig: EnvoyRig

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)


@pytest.fixture
def lasting(run_folder: Path, tmp_path: Path) -> Iterator[Lasting]:
    """It believes the issuers of `access_testing`."""
    issuers = tuple(tokens.issuer(name, key) for name, key in access_testing.KEYS.items())
    loop = asyncio.new_event_loop()
    context = envoy_rig(run_folder, tmp_path)
    rig = loop.run_until_complete(context.__aenter__())
    loop.run_until_complete(stand(rig, Platform(issuers=issuers)))
    yield Lasting(loop, rig)
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()
