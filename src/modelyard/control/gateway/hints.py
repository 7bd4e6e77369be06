"""Owners to look at again, coalesced."""

import asyncio
from collections.abc import AsyncIterator

from modelyard.control.ir.values import Key


class Hints:
    """A set of keys that one consumer drains: bounded by the number of owners, however often they are named."""

    def __init__(self) -> None:
        self._waiting: dict[Key, None] = {}
        self._filled = asyncio.Event()

    def add(self, key: Key) -> None:
        self._waiting[key] = None
        self._filled.set()

    async def drain(self) -> AsyncIterator[Key]:
        """Each key once after it was added, in the order of their first mention; until cancelled."""
        while True:
            await self._filled.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            if not self._waiting:
                self._filled.clear()
            yield key
