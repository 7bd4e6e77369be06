"""One partition's files: each commit is one part, and each part tells where the next one begins.

Nothing else has to be kept: the last part is the offset. Whoever commits first what comes after it has committed it,
and everybody else finds the name taken. Source: `knowledge/jobs-and-streams.md` 5.4.

What lies at the prefix besides is left alone, unless another stream writes there. Parts may be moved away or put
together by other tools, but not the newest ones of a partition, which are its offset; and files must not be put under
names of parts.
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.parts import Part
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams import aside, chain, prefix, tables
from modelyard.runtime.streams.chain import Begun, Note, Owner, Skip, Tail
from modelyard.runtime.streams.port import Away, Committed, Fenced, Outcome, Unknown
from modelyard.runtime.streams.prefix import Target
from modelyard.runtime.streams.records import Group, Offset
from modelyard.storage.commit import Item, commit
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.stores import Entry, Store

MOST_PART_BYTES = 256 * 2**20
_MOST_SKIPS = 1000
"""Before the same part; then it is put without rows all the same, or their list would grow for ever."""


class FilesSink:
    """What a `port.Link` needs of a sink of files. Used by one task at a time. Methods raise Away and Refused."""

    def __init__(self, store: Store, target: Target) -> None:
        self._store = store
        self._target = target
        self._folder = chain.folder(target.stream, target.partition)
        self._staging = chain.staging(target.stream)
        self._schema: pa.Schema | None = None
        """Of the last part, whose types are gone on with."""
        self._letters = aside.Letters(store, self._folder)
        self._skips = aside.Skips(store, target.stream, target.partition)
        self._skip: Skip | None = None
        """The last one before the next part."""
        self._swept = 0

    async def recover(self) -> Offset | None:
        """The offset after the last part, or skip; that of `begin` without any; None if the partition has not begun."""
        with _told():
            await self._check_owner()
            begun = await self._read(f"{self._folder}/begin.json", Begun)
            if begun is not None:
                prefix.check_begun(begun, self._target, self._store.uri)
            tail = await self._read(f"{self._folder}/tail.json", Tail)
            note = await self._last_note(tail)
            offset = None if begun is None else Offset(position=begun.position)
            if note is not None:
                prefix.check_source(note.source, note.created, self._target, self._store.uri)
                prefix.check_outputs(self._schema, self._target, self._store.uri)
                offset = note.offset
            return None if offset is None else await self._recovered(offset, note, tail)

    async def _recovered(self, offset: Offset, note: Note | None, tail: Tail | None) -> Offset:
        """With what killed runners have left removed."""
        self._swept = tail.swept if tail is not None else 0
        with contextlib.suppress(_NoteGoneError):
            await self._letters.sweep(note, self._swept, self._note)
        if note is not None:
            self._swept = note.first
        if self._target.partition == 0:
            await aside.remove_drafts(self._store, self._staging)
        self._skip = None if self._target.format in chain.NOTED else await self._skips.last(_slot(offset))
        return offset if self._skip is None else self._skip.offset

    async def begin(self, position: int) -> Outcome:
        """Fix where the partition begins. position: of the last message that is left out."""
        target = self._target
        with _told():
            await self._own()
            mine = Begun(
                stream=target.stream,
                partition=target.partition,
                position=position,
                format=target.format,
                source=target.source,
                created=target.created,
                attempt=secrets.token_hex(8),
            )
            key = f"{self._folder}/begin.json"

            async def winner() -> str:
                found = await self._read(key, Begun)
                return "" if found is None else found.attempt

            item = Item(key=key, body=msgspec.json.encode(mine), staging=self._staging)
            won = await commit(self._store, item, mine.attempt, winner) == mine.attempt
        return Committed(Offset(position=position)) if won else Fenced()

    async def commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        """Put the part of the group, which is visible at once and has its dead letters' name. offset: the committed
        one; expired: messages that left the source unread since then."""
        try:
            with _told():
                return await self._commit(offset, group, expired)
        except Away as away:
            return Unknown(away.message)

    async def _commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        target, attempt, first = self._target, secrets.token_hex(8), _slot(offset)
        letters = [each for each in group.outgoing if each.dead]
        dead = chain.dead(target.stream, target.partition, first, attempt) if letters else ""
        before = self._skip if self._skip is not None and self._skip.first == first else None
        note = Note(
            stream=target.stream,
            partition=target.partition,
            first=first,
            last=group.last,
            records=offset.records + group.records,
            dead_letters=offset.dead_letters + group.dead_letters,
            expired=offset.expired + expired,
            rows=sum(each.num_rows for each in group.tables),
            guessed=not group.tables and self._schema is None,
            source=target.source,
            created=target.created,
            attempt=attempt,
            dead=dead,
            skipped=before.dead if before is not None else (),
        )
        beside = {dead: chain.dead_body(letters)} if dead else {}
        number = before.number + 1 if before is not None else 1
        if target.format in chain.NOTED:
            return await self._put_part(note, group, beside)
        if not note.rows and number <= _MOST_SKIPS:
            return await self._put_skip(note, number, beside)
        if await self._store.head(self._skips.key(first, number)) is not None:
            return Fenced()  # somebody has come further, and nobody has to do that again
        return await self._put_part(note, group, beside)

    async def _put_part(self, note: Note, group: Group, beside: Mapping[str, bytes]) -> Outcome:
        attempt = note.attempt
        body, schema = await asyncio.to_thread(self._encoded, group, note)
        if self._target.format not in chain.NOTED and not await self._noted_first(note, body, beside):
            attempt = ""  # the same part was made by somebody else: it may be put, and will not be this attempt's
        beside = beside if attempt else {}
        item = Item(key=self._part(note.first), body=body, staging=self._staging, beside=beside)
        found = await commit(self._store, item, attempt, lambda: self._winner(note.first))
        if not attempt or found != attempt:
            return Fenced()
        self._schema = None if note.guessed else schema
        self._skip = None
        await self._tidy(note)
        return Committed(note.offset)

    async def _put_skip(self, note: Note, number: int, beside: Mapping[str, bytes]) -> Outcome:
        """What the note tells, of no rows, without a part. Fenced where the part is there already; if it comes at the
        same moment the skip is void, and the next commit finds that out."""
        skip = Skip(
            first=note.first,
            number=number,
            last=note.last,
            records=note.records,
            dead_letters=note.dead_letters,
            expired=note.expired,
            attempt=note.attempt,
            dead=(*note.skipped, *beside),
        )
        key = self._skips.key(note.first, number)

        async def winner() -> str:
            found = await self._read(key, Skip)
            return "" if found is None else found.attempt

        item = Item(key=key, body=msgspec.json.encode(skip), staging=self._staging, beside=beside)
        if await commit(self._store, item, skip.attempt, winner) != skip.attempt:
            return Fenced()
        if await self._store.head(self._part(note.first)) is not None:
            await self._store.delete([key, *beside])
            return Fenced()
        self._skip = skip
        return Committed(skip.offset)

    async def _noted_first(self, note: Note, body: bytes, beside: Mapping[str, bytes]) -> bool:
        """Put the note of a part that cannot hold it. False: there is one of the same part by another attempt."""
        for key, content in beside.items():
            await self._store.put(key, content)
        key = await self._note_key(note.first, body)
        item = Item(key=key, body=msgspec.json.encode(note), staging=self._staging)

        async def winner() -> str:
            found = await self._read(key, Note)
            return "" if found is None else found.attempt

        if await commit(self._store, item, note.attempt, winner) == note.attempt:
            return True
        await self._store.delete(beside)
        return False

    def _encoded(self, group: Group, note: Note) -> tuple[bytes, pa.Schema]:
        """In a thread: (the part, its columns)."""
        target = self._target
        if group.tables:
            table = tables.united(group.tables, self._schema)
        else:
            table = tables.united([target.empty.empty_table()], self._schema)
        part = Part(target.format, table.schema, {chain.NOTE.decode(): msgspec.json.encode(note).decode()})
        part.write(table)
        body = part.finish()
        if len(body) > MOST_PART_BYTES:
            raise Refused(
                Reason.PART_TOO_LARGE,
                f"a part of partition {target.partition} became {len(body) >> 20} MiB, at most "
                f"{MOST_PART_BYTES >> 20} are put at once; keep fewer fields, or lower spec.batch.rows",
            )
        return body, table.schema

    async def _tidy(self, note: Note) -> None:
        """After a commit: where to look first next time, and nothing of lost attempts. None of it has to succeed."""
        tail = Tail(first=note.first, swept=self._swept)
        with contextlib.suppress(StoreUnavailable, StoreRefused):
            await self._store.put(f"{self._folder}/tail.json", msgspec.json.encode(tail))
            await self._letters.decided(note)
            await self._skips.decided(note.first)

    async def _winner(self, first: int) -> str:
        """The attempt that has committed what begins there. Raises StoreUnavailable where that cannot be told: so
        nobody removes dead letters that may be the winner's."""
        with contextlib.suppress(_NoteGoneError):
            note = await self._note(first)
            if note is not None:
                return note.attempt
        raise StoreUnavailable(
            Reason.STORE_UNREACHABLE, f"{self._store.uri}/{self._part(first)} went while it was committed"
        )

    async def _last_note(self, tail: Tail | None) -> Note | None:
        """Of the last part: from the one that was last lately on; by a listing of all where that is gone."""
        try:
            note = await self._note(tail.first) if tail is not None else None
            while note is not None:
                following = await self._note(note.last + 1)
                if following is None:
                    return note
                note = following
            first = await self._newest()
            if tail is not None and first < tail.first:
                raise self._lost(f"{self._part(tail.first)} and what followed were removed")
            return None if first < 0 else await self._note(first)
        except _NoteGoneError as error:
            raise self._lost(f"what tells where {error} ends was removed") from error

    async def _newest(self) -> int:
        """Where the last part begins, by a listing; -1 without any."""
        target = self._target
        found = [chain.first_of(each.key, target.partition, target.format) for each in await self._store.list()]
        return max((each for each in found if each is not None), default=-1)

    async def _note(self, first: int) -> Note | None:
        """Of the part that begins there; None: there is none. Raises Refused for what is not ours, and
        _NoteGoneError."""
        key = self._part(first)
        entry = await self._store.head(key)
        if entry is None:
            return None
        note = await (self._noted(entry) if self._target.format in chain.NOTED else self._beside(key, first))
        if note is None or note.first != first or note.stream != self._target.stream:
            who = f"stream {note.stream}" if note is not None else "something else"
            raise prefix.in_use(f"{self._store.uri}/{key} was written by {who}")
        return note

    async def _noted(self, entry: Entry) -> Note | None:
        """From the end of the file alone."""

        def read() -> pa.Schema | None:
            with self._store.open_file(entry) as file, contextlib.suppress(pa.ArrowException, OSError, ValueError):
                source: Any = pa.PythonFile(file, "r")
                if self._target.format == "parquet":
                    return pq.read_schema(source)
                return pa.ipc.open_file(source).schema
            return None

        schema = await asyncio.to_thread(read)
        if schema is None:
            return None
        note = chain.note_of(schema)
        self._schema = None if note is None or note.guessed else schema.remove_metadata()
        return note

    async def _beside(self, key: str, first: int) -> Note:
        """By the content of the part. Raises _NoteGoneError."""
        body = await self._store.get(key, limit_bytes=2**31)
        found = await self._read(await self._note_key(first, body or b""), Note)
        if found is None:
            raise _NoteGoneError(key)
        return found

    async def _note_key(self, first: int, body: bytes) -> str:
        sha256 = await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
        return chain.note(self._target.stream, self._target.partition, first, sha256)

    async def _own(self) -> None:
        if not await self._store.create(chain.OWNER, msgspec.json.encode(self._target.owner), staging=self._staging):
            await self._check_owner()

    async def _check_owner(self) -> None:
        prefix.check_owner(await self._read(chain.OWNER, Owner), self._target, self._store.uri)

    def _lost(self, what: str) -> Refused:
        return Refused(
            Reason.OFFSET_LOST,
            f"{self._store.uri}: {what}, and with it the offset of partition {self._target.partition}; put it back, or "
            "give the stream another name and another prefix with spec.start",
        )

    def _part(self, first: int) -> str:
        return chain.part(self._target.partition, first, self._target.format)

    async def _read(self, key: str, kind: type[aside.S]) -> aside.S | None:
        return await aside.read(self._store, key, kind)


def _slot(offset: Offset) -> int:
    """What the next part is called after: with skips not where its records begin, but where they do."""
    return offset.fence or offset.position + 1


class _NoteGoneError(Exception):
    """A part is there, and what tells about it is not: its key."""


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the store in the words of a link."""
    try:
        yield
    except StoreUnavailable as error:
        raise Away(error.reason, error.message) from error
    except StoreRefused as error:
        raise Refused(error.reason, error.message) from error
