"""From a file or folder of this machine to an object store, under the digest of its content.

Whatever lies there is complete and right: small objects are put if absent, large ones are checked while they are sent
and become visible at their end. What is there already is not sent again.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.storage.digest import LIMITS, File, Inventory, Limits, inventory
from modelyard.storage.errors import StoreRefused, StoreUnavailable, unreadable
from modelyard.storage.stores import Store

_BLOCK = 4 * 2**20
_SMALL = 16 * 2**20
"""Up to so many bytes are sent in one request."""
_AT_ONCE = 4
_RESERVED = "?#\\"
"""What no uri of ours holds."""

Progress = Callable[[int], None]
"""Told how many more bytes are there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What to write into a Model. files: of all, sent: of those that were not there before."""

    uri: str
    digest: str
    size_bytes: int
    files: int
    sent: int


def measure(path: Path, limits: Limits = LIMITS) -> Inventory:
    """Read all of it once. Raises StoreRefused, StoreUnavailable."""
    return inventory(path, limits)


async def push(path: Path, found: Inventory, store: Store, progress: Progress) -> Pushed:
    """found: of `measure`. Raises StoreRefused, and StoreUnavailable also when a file has changed since then."""
    hexadecimal = found.digest.partition(":")[2]
    places = {each: _key(hexadecimal, path, each) for each in found.files}
    gate = asyncio.Semaphore(_AT_ONCE)

    async def send(file: File) -> bool:
        async with gate:
            return await _send(path / file.path if file.path else path, file, places[file], store, progress)

    sent: list[bool] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(each)) for each in found.files]
        sent = [each.result() for each in tasks]
    except* (StoreRefused, StoreUnavailable) as errors:
        raise _first(errors) from errors
    folder = f"{store.uri}/{hexadecimal}"
    alone = found.files[0] if len(found.files) == 1 and not found.files[0].path else None
    return Pushed(
        uri=f"{store.uri}/{places[alone]}" if alone else folder,
        digest=found.digest,
        size_bytes=found.size_bytes,
        files=len(found.files),
        sent=sum(sent),
    )


def _first(errors: BaseExceptionGroup) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _key(hexadecimal: str, path: Path, file: File) -> str:
    """The name of a single file stays, for people and for what tells a format by it."""
    name = file.path or path.resolve().name
    if any(each in _RESERVED or not each.isprintable() for each in name):
        raise StoreRefused(Reason.ARTIFACT_INVALID, f"the file name {name!r} cannot be part of a uri; rename it")
    return f"{hexadecimal}/{name}"


async def _send(path: Path, file: File, key: str, store: Store, progress: Progress) -> bool:
    """Whether it was not there."""
    there = await store.head(key)
    if there is not None:
        if there.size_bytes != file.size_bytes:
            raise StoreRefused(
                Reason.ARTIFACT_CHANGED,
                f"{store.uri}/{key} has {there.size_bytes} bytes, not {file.size_bytes}: somebody has written another "
                "content under this name; remove it, or push to another prefix",
            )
        progress(file.size_bytes)
        return False
    if file.size_bytes <= _SMALL:
        body = b"".join(await asyncio.to_thread(list, _blocks(path, file)))
        made = await store.create(key, body, staging=".push")
        progress(file.size_bytes)
        return made

    def told() -> Iterator[bytes]:
        for block in _blocks(path, file):
            yield block
            progress(len(block))

    await store.send(key, told(), file.size_bytes)
    return True


def _blocks(path: Path, file: File) -> Iterator[bytes]:
    """The last one comes only when all of them are what was measured."""
    state = hashlib.sha256()
    held = b""
    try:
        with path.open("rb") as source:
            while block := source.read(_BLOCK):
                if held:
                    yield held
                state.update(block)
                held = block
    except OSError as error:
        raise unreadable(path, error) from error
    if state.hexdigest() != file.sha256:
        raise StoreUnavailable(Reason.ARTIFACT_UNREADABLE, f"{path} changed while it was sent; push it again")
    if held:
        yield held
