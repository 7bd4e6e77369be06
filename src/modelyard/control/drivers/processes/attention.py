"""Waiting for one of many things: whoever changes a fact wakes the one who waits, who looks at all facts again."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Attention:
    """One waits, others wake. A wake-up without a fact behind it, or from before the wait, ends no wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Something changed."""
        self._event.set()

    async def until(self, fact: Callable[[], bool], seconds: float | None = None) -> None:
        """Until the fact holds, at most so many seconds; callers look at facts again anyway."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not fact():
                    await self._event.wait()
                    self._event.clear()
