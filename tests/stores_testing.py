"""A twin of `storage.stores.Store` without threads, for simulations in virtual time; it passes the same suite."""

from collections.abc import Iterable

from modelyard.storage.stores import Entry


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
