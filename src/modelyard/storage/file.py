"""An object as a file: seekable, read in pieces, always the same version."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import obstore

if TYPE_CHECKING:
    from obstore import GetOptions  # obstore has it only for type checkers

_BLOCK = 2**20


class StoredFile(io.RawIOBase):
    """Synchronous. Small reads come from a block of 1 MiB, large ones go straight through.

    raw: the number of bytes that a request is for -> obstore's store for it. told: makes errors ours.
    """

    def __init__(
        self,
        raw: Callable[[int], Any],
        path: str,
        size_bytes: int,
        etag: str,
        told: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self._raw = raw
        self._path = path
        self._size = size_bytes
        self._etag = etag
        self._told = told
        self._position = 0
        self._block = b""
        self._block_start = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        """Bytes; pyarrow asks for it."""
        return self._size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        count = left if size < 0 else min(size, left)
        if not count:
            return b""
        found = self._fetch(self._position, count) if count >= _BLOCK else self._from_block(count)
        self._position += len(found)
        return found

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        found = self.read(memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(found)] = found
        return len(found)

    def _from_block(self, count: int) -> bytes:
        start = self._position - self._block_start
        if not 0 <= start <= len(self._block) - count:
            self._block_start = self._position
            self._block = self._fetch(self._position, min(_BLOCK, self._size - self._position))
            start = 0
        return self._block[start : start + count]

    def _fetch(self, start: int, count: int) -> bytes:
        options: GetOptions = {"range": (start, start + count)}
        if self._etag:
            options["if_match"] = self._etag
        with self._told():
            return bytes(obstore.get(self._raw(count), self._path, options=options).bytes())
