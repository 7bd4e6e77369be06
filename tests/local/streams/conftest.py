"""A broker of a module, and connections to it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modelyard.runtime.streams.nats.broker import Broker, connect
from nats_testing import Bare, Nats


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    with Nats(Path(tmp_path_factory.mktemp("nats"))) as found:
        yield found


@pytest.fixture
async def bare(server: Nats) -> AsyncIterator[Bare]:
    async with server.client() as found:
        yield found


@pytest.fixture
async def broker(server: Nats, tmp_path: Path) -> AsyncIterator[Broker]:
    async with connect(server.uri, {}, "", tmp_path) as found:
        yield found
