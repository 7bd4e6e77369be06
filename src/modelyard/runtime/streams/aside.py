"""What lies beside the parts of one partition: dead letters, skips, and drafts that nobody finishes any more."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams import chain
from modelyard.runtime.streams.chain import Note, Skip
from modelyard.storage.stores import Store

_log = logging.getLogger(__name__)
_MOST_BYTES = 2**20
_MOST_LOOKED_AT = 64
_DRAFT_SECONDS = 3600
"""No file takes so long to get its name."""
S = TypeVar("S", bound=msgspec.Struct)

Told = Callable[[int], Awaitable[Note | None]]
"""What the part that begins there tells; None: there is none."""


async def read(store: Store, key: str, kind: type[S]) -> S | None:
    """None: not there. Raises Refused for what is not ours."""
    data = await store.get(key, limit_bytes=_MOST_BYTES)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Reason.OUTPUT_IN_USE, f"{store.uri}/{key} was changed by somebody: {error}") from error


class Letters:
    """Dead letters of attempts that lost, or may have: which one won is known when the part is there."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/dead"
        self._undecided: set[str] = set()

    async def sweep(self, last: Note | None, swept: int, told: Told) -> None:
        """Remove those that lost against parts from `swept` on up to the last one, the newest first where there are
        many; note the rest."""
        keys = [each.key for each in await self._store.list(self._folder)]
        until = -1 if last is None else last.last
        self._undecided = {key for key in keys if chain.attempt_of(key)[0] > until}
        if last is None:
            return
        past = {first for key in keys if swept <= (first := chain.attempt_of(key)[0]) < last.first}
        notes = {last.first: last}
        for first in sorted(past, reverse=True)[:_MOST_LOOKED_AT]:
            note = await told(first)
            if note is not None:  # else the part was moved away
                notes[first] = note
        lost = [key for key in keys if (note := notes.get(chain.attempt_of(key)[0])) and key not in note.letters]
        # What begins in the middle of the last part was read from an offset that is none any more.
        lost += [key for key in keys if last.first < chain.attempt_of(key)[0] <= last.last]
        if lost:
            _log.info("%s: %d files of lost attempts are removed", self._folder, len(lost))
            await self._store.delete(lost)

    async def decided(self, note: Note) -> None:
        """The part is there: remove what lost against it."""
        lost = {key for key in self._undecided if chain.attempt_of(key)[0] == note.first} - note.letters
        await self._store.delete(sorted(lost))
        self._undecided -= lost


class Skips:
    """Commits without a part, before the next part."""

    def __init__(self, store: Store, stream: str, partition: int) -> None:
        self._store = store
        self._stream = stream
        self._partition = partition
        self._keys: set[str] = set()

    def key(self, first: int, number: int) -> str:
        """Of a skip, which is there from now on, by us or somebody else."""
        key = chain.skip(self._stream, self._partition, first, number)
        self._keys.add(key)
        return key

    async def last(self, first: int) -> Skip | None:
        """The last one before the part of that name; those of earlier parts are removed."""
        listed = await self._store.list(f"{chain.folder(self._stream, self._partition)}/skips")
        self._keys = {each.key for each in listed}
        await self.decided(first - 1)
        found = [key for key in self._keys if chain.skip_of(key)[0] == first]
        key = max(found, key=lambda each: chain.skip_of(each)[1], default="")
        return await read(self._store, key, Skip) if key else None

    async def decided(self, first: int) -> None:
        """The part of that name is there."""
        past = {key for key in self._keys if chain.skip_of(key)[0] <= first}
        await self._store.delete(sorted(past))
        self._keys -= past


async def remove_drafts(store: Store, staging: str) -> None:
    """What runners that were killed had begun to write on file://."""
    old = [each.key for each in await store.list(staging) if each.modified < time.time() - _DRAFT_SECONDS]
    await store.delete(old)
