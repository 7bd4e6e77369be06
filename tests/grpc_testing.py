"""A gateway before real fronts, for clients that speak gRPC."""

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.aio as aio
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException

from front_testing import Front
from gateway_testing import REST_SECONDS
from modelyard.base.clock import SystemClock
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import acknowledged
from modelyard.testing.gateway_suite import route as suite_route


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """One whose sockets have short paths."""
    folder = Path(tempfile.mkdtemp(prefix="gc-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def key(name: str) -> Key:
    return Key(kind="ModelService", namespace="default", name=name)


class Served:
    """A gateway, and models behind it by name: each has the units that it is told."""

    def __init__(self, gateway: EnvoyGateway) -> None:
        self.gateway = gateway
        self.address = gateway.url.removeprefix("http://")
        self._routes: dict[str, Route] = {}
        self._endpoints: dict[str, Endpoints] = {}

    async def serve(self, name: str, unit: str, *fronts: Front) -> None:
        """From now on, requests for a model go to these fronts; returns when that is in force."""
        self._routes[name] = suite_route(key(name), unit)
        self._endpoints[unit] = Endpoints(unit=unit, addresses=tuple(f"unix:{front.socket}" for front in fronts))
        await self.publish()

    def add(self, unit: str, *addresses: str) -> None:
        """Other endpoints, for routes that `publish` gets."""
        self._endpoints[unit] = Endpoints(unit=unit, addresses=addresses)

    async def publish(self, **others: Route) -> None:
        self._routes |= others
        await self.gateway.publish(tuple(self._routes.values()), tuple(self._endpoints.values()))
        for each in self._routes.values():
            await acknowledged(self.gateway, each)


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """folder: with a short path."""
    (folder / "gw").mkdir(exist_ok=True)
    async with EnvoyGateway(
        host="127.0.0.1", port=0, run=folder / "gw", logs=folder / "gw", clock=SystemClock()
    ) as gateway:
        gateway.configure(Platform(authentication="none", local_only=True))
        yield Served(gateway)


def tensor(array: Any, name: str = "x", datatype: str = "FP32") -> InferInput:
    found = InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


class CallLoad:
    """Callers of `linear`, by gRPC, one call after the other while the block runs."""

    def __init__(self, address: str, callers: int = 8) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._address = address
        self._callers = callers
        self._ends = False

    async def __aenter__(self) -> "CallLoad":
        self._client = aio.InferenceServerClient(self._address)
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends = True
        await asyncio.gather(*self._tasks)
        await self._client.close()

    async def _call(self) -> None:
        while not self._ends:
            try:
                found = await self._client.infer("linear", [tensor(np.eye(1, 4, dtype=np.float32))], client_timeout=30)
                if found.as_numpy("y").tolist() != [[0, 1, 2]]:
                    self.failures.append(f"wrong: {found.get_response()}")
                self.answered[found.get_response().model_version] += 1
            except InferenceServerException as error:
                self.failures.append(repr(error))
            await asyncio.sleep(REST_SECONDS)
