"""How often a partition was begun at the same message by runners that ended without getting past it."""

import contextlib
from collections.abc import Awaitable, Callable

from modelyard.runtime.streams.port import Away


class Trials:
    """Of one lane. A process counts once, at the first message after it claimed the partition: that it reads again,
    since the broker was away for example, is no death.

    count: (position) -> how often it was begun, this time included, kept where all runners see it. forget: remove that.
    """

    def __init__(self, count: Callable[[int], Awaitable[int]], forget: Callable[[], Awaitable[None]]) -> None:
        self._count = count
        self._forget = forget
        self._found: tuple[int, int] | None = None
        self._open = False

    async def attempts(self, position: int) -> int:
        """Called before the message at the position is scored. Raises Away."""
        if self._found is None:
            self._found = (position, await self._count(position))
            self._open = True
        at, attempts = self._found
        return attempts if at == position else 1

    async def progressed(self) -> None:
        """Something was committed, or the partition is given back in peace. A count that stays is of a position that
        nobody begins at again."""
        if self._open:
            self._open = False
            with contextlib.suppress(Away):
                await self._forget()
