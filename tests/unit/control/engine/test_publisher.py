"""The gateway is told at once, and of much that comes together, together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine_testing import LoopClock, virtual
from modelyard.control.drivers.memory import MemoryDriver
from modelyard.control.engine.publisher import Publisher
from modelyard.control.gateway.memory import MemoryGateway
from modelyard.control.ir.access import Access
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key


class Told(MemoryGateway):
    """Remembers how many routes it was told, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[tuple[float, int]] = []

    async def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        self.at.append((asyncio.get_running_loop().time(), len(routes)))
        await super().publish(routes, endpoints)


@asynccontextmanager
async def publishing(gateway: MemoryGateway) -> AsyncIterator[Publisher]:
    publisher = Publisher(MemoryDriver(LoopClock()), gateway, lambda _owner: Access())
    publisher.open()
    task = asyncio.ensure_future(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()


def offer(publisher: Publisher, name: str) -> None:
    owner = Key(kind="ModelService", namespace="default", name=name)
    publisher.offer(owner, (Route(owner=owner, ids=(f"{name}.default",), timeout_seconds=1.0),))


@virtual
async def test_a_hundred_offers_one_after_the_other_are_few_publications_and_the_first_is_at_once() -> None:
    gateway = Told()
    async with publishing(gateway) as publisher:
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        gateway.at.clear()
        for number in range(100):
            offer(publisher, f"model-{number}")
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
    assert gateway.at[0] == (began, 1)
    assert gateway.at[-1][1] == 100
    assert len(gateway.at) <= 20
