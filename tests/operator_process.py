"""The operator as a program, with memory twins in the place of pods and gateways. Arguments: those of the operator.

With the variable REAL_PODS it runs real ones, of the stand-in images.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Collection
from typing import Any, Self

from modelyard.control.drivers.memory import MemoryDriver
from modelyard.control.gateway.memory import MemoryGateway
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.server import operator
from modelyard.server.leading import Ground, Seams, pods


class MemoryPods(MemoryDriver):
    """Remembers how it was asked to render."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground.clock)
        self.synced = asyncio.Event()

    async def follow(self) -> None:
        await asyncio.Event().wait()

    async def run(self) -> None:
        self.synced.set()
        await asyncio.Event().wait()

    def template(self, what: Unit | Task) -> dict[str, Any]:
        return {"metadata": {"annotations": {"of": what.name}}}


class MemoryGateways(MemoryGateway):
    """Says what it is told."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self._ground = ground

    url = "http://gateway.example"
    compared: Collection[str] = ()

    async def __aenter__(self) -> Self:
        assert self._ground.identity().certificate.startswith("-----BEGIN CERTIFICATE")
        print("gateways: may connect", flush=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        print("gateways: ended", flush=True)

    async def report_unknown_keys(self, told: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def metrics(self, model: str = "") -> str:
        return f"# of {model or 'all'}\n"

    def expect(self, ready: Collection[str], leaving: Collection[str]) -> None:
        print(f"gateways: {sorted(ready)} serve, {sorted(leaving)} are leaving", flush=True)

    def stop_serving(self) -> None:
        print("gateways: are told nothing more", flush=True)


if __name__ == "__main__":
    driver = pods if os.environ.get("REAL_PODS") else MemoryPods
    sys.exit(operator.main(sys.argv[1:], os.environ, Seams(driver=driver, gateways=MemoryGateways)))
