"""Owners to look at again: a coalesced set with one consumer."""

import asyncio
from collections.abc import AsyncIterator

from modelyard.control.ir.values import Key


class Hints:
    """Bounded by the number of owners: one that is not yet taken is not added twice."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}
        self._filled = asyncio.Event()

    def add(self, key: Key) -> None:
        """Look at its observation again soon."""
        self._keys[key] = None
        self._filled.set()

    async def stream(self) -> AsyncIterator[Key]:
        """Forever, in the order in which owners were first added."""
        while True:
            await self._filled.wait()
            key = next(iter(self._keys))
            del self._keys[key]
            if not self._keys:
                self._filled.clear()
            yield key
