"""The file of the access log: Envoy writes it; here it is made private and kept bounded."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater

NAME = "access.log"
_LARGEST_BYTES = 32 * 2**20
_CHECK_SECONDS = 1.0


class AccessFile:
    """A file and its predecessor `access.log.1`, each of about `largest` bytes: more by what comes between two looks.

    reopen: tells Envoy to write to the file that now has the name; raises RetryLater.
    """

    def __init__(self, folder: Path, reopen: Callable[[], Awaitable[object]], largest: int = _LARGEST_BYTES) -> None:
        self.path = folder / NAME
        self._reopen = reopen
        self._largest = largest
        self._is_renamed = False

    def make(self) -> None:
        """Before Envoy does, which would let others read it."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)

    async def keep(self, clock: Clock) -> None:
        """Look after it until cancelled."""
        while True:
            await clock.sleep(_CHECK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Change files if this one is full."""
        if not self._is_renamed and self._size() >= self._largest:
            self.path.replace(self.path.with_name(f"{NAME}.1"))
            self._is_renamed = True
        if self._is_renamed:
            self.make()
            try:
                await self._reopen()
            except RetryLater:
                return  # Envoy is just being started, or busy: until then it writes to the old file
            self._is_renamed = False
        elif not self.path.exists():
            self._is_renamed = True  # somebody has removed it

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
