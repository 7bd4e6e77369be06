"""Who may write: asked for every request that may change something, at the moment that it is sent."""

from collections.abc import Callable
from typing import Any

import aiohttp

Guard = Callable[[], None]
"""Raises RetryLater while nothing may be written."""


def let_pass() -> None:
    """Always."""


def guarded(guard: Guard) -> type[aiohttp.ClientRequest]:
    """Requests that ask it when they are sent, also when they are sent again.

    Not earlier: to make a connection takes up to half a minute, and somebody else may lead by then.
    """

    class Guarded(aiohttp.ClientRequest):
        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            if self.method != "GET":
                guard()
            return await super().send(conn)

    return Guarded
