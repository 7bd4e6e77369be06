"""A twin of `storage.stores.Store` without threads, for simulations in virtual time; it passes the same suite. And what
may happen to it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from modelyard.base.conditions import Reason
from modelyard.storage.errors import StoreUnavailable
from modelyard.storage.stores import Entry

T = TypeVar("T")


class MemoryTwin:
    """Objects in a dictionary. deleted: keys that were there and were removed, in order."""

    def __init__(self) -> None:
        self.uri = "memory:"
        self.deleted: list[str] = []
        self._objects: dict[str, tuple[int, bytes]] = {}
        self._version = 0

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        start = f"{prefix}/" if prefix else ""
        return tuple(self._entry(key) for key in sorted(self._objects) if key.startswith(start))

    async def head(self, key: str) -> Entry | None:
        return self._entry(key) if key in self._objects else None

    async def get(self, key: str, *, limit_bytes: int = 1 << 26) -> bytes | None:
        found = self._objects.get(key)
        return None if found is None else found[1][:limit_bytes]

    async def create(self, key: str, body: bytes, *, staging: str = "") -> bool:
        if key in self._objects:
            return False
        await self.put(key, body)
        return True

    async def replace(self, key: str, body: bytes, *, staging: str = "") -> None:
        await self.put(key, body)

    async def put(self, key: str, body: bytes) -> None:
        self._version += 1
        self._objects[key] = (self._version, bytes(body))

    async def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            if self._objects.pop(key, None) is not None:
                self.deleted.append(key)

    def _entry(self, key: str) -> Entry:
        version, body = self._objects[key]
        return Entry(key=key, size_bytes=len(body), etag=str(version), modified=float(version))


class Killed(BaseException):
    """`kill -9`: nothing of the runner goes on."""


class Chaos:
    """What happens to the store's operations, one after the other; nothing after a while, so that all ends."""

    def __init__(self, seed: int, faults: int) -> None:
        self.random = random.Random(seed)
        self.left = faults

    def next(self) -> str:
        if self.left and self.random.random() < 0.15:
            self.left -= 1
            return self.random.choice(["kill before", "kill after", "reply lost", "unreachable"])
        return ""

    def pause(self) -> float:
        return self.random.choice([0.0, 0.01, 0.1, 1.0, 4.0])


class FaultyStore:
    """The store of one runner. A lost reply is followed by the client's own retry, as on the real one."""

    def __init__(self, inner: MemoryTwin, chaos: Chaos) -> None:
        self.inner = inner
        self.uri = inner.uri
        self._chaos = chaos

    async def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(self._chaos.pause())
        fault = self._chaos.next()
        if fault == "kill before":
            raise Killed
        found = await work()
        if fault == "kill after":
            raise Killed
        if fault == "unreachable":
            raise StoreUnavailable(Reason.STORE_UNREACHABLE, "no answer")
        if fault == "reply lost":
            found = await work()
        await asyncio.sleep(self._chaos.pause())
        return found

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        return await self._do(lambda: self.inner.list(prefix))

    async def get(self, key: str, *, limit_bytes: int = 1 << 26) -> bytes | None:
        return await self._do(lambda: self.inner.get(key, limit_bytes=limit_bytes))

    async def create(self, key: str, body: bytes, *, staging: str = "") -> bool:
        return await self._do(lambda: self.inner.create(key, body))

    async def replace(self, key: str, body: bytes, *, staging: str = "") -> None:
        await self._do(lambda: self.inner.replace(key, body))

    async def put(self, key: str, body: bytes) -> None:
        await self._do(lambda: self.inner.put(key, body))

    async def delete(self, keys: Any) -> None:
        gone = list(keys)
        await self._do(lambda: self.inner.delete(gone))
