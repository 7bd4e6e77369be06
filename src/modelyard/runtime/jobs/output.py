"""The acts of the protocol on a real store. Each may be repeated; what a lost reply left undecided is read back."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.runtime.jobs import layout, shards
from modelyard.runtime.jobs.layout import Commit, Seen
from modelyard.runtime.jobs.machine import Draft, winner
from modelyard.runtime.jobs.shards import RunRecord
from modelyard.storage.commit import Item, commit
from modelyard.storage.errors import StoreRefused
from modelyard.storage.stores import Store

_log = logging.getLogger(__name__)
MOST_RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Author:
    """Who begins an attempt. index: of the runner; incarnation: of its process."""

    index: int
    incarnation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A scored shard. attempt: 16 hexadecimal digits; part: the file; errors_file: JSON lines, or empty."""

    shard: int
    attempt: str
    part: bytes
    rows: int
    errors: int
    errors_file: bytes = b""


@dataclass(frozen=True, slots=True)
class Look:
    """A listing: what it says, and the version of every object in it."""

    seen: Seen
    etags: Mapping[str, str] = field(default_factory=dict)


class Output:
    """Everything below the uri of a job's output."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[int, RunRecord] = {}
        self._authors: dict[str, Author | None] = {}

    @property
    def uri(self) -> str:
        return self._store.uri

    async def look(self) -> Look:
        """List it."""
        entries = await self._store.list()
        return Look(layout.see(each.key for each in entries), {each.key: each.etag for each in entries})

    async def records(self, seen: Seen) -> dict[int, RunRecord]:
        """The records of all runs."""
        found = {}
        for number in seen.runs:
            record = await self.record(number)
            if record is not None:
                found[number] = record
        return found

    async def record(self, number: int) -> RunRecord | None:
        """One of them; a record never changes."""
        if number not in self._records:
            key = layout.run(number)
            data = await self._store.get(key, limit_bytes=MOST_RECORD_BYTES)
            if data is None:
                return None
            self._records[number] = shards.decode(data, f"{self.uri}/{key}")
        return self._records[number]

    async def take(self, record: RunRecord) -> bool:
        """Begin a run. False: somebody else has begun one under this number."""
        number = record.number
        return await self._create(layout.run(number), shards.encode(record), number)

    async def begin(self, number: int, shard: int, count: int, author: Author) -> bool:
        """Begin a shard. False: somebody else was faster."""
        body = msgspec.json.encode({"runner": author.index, "incarnation": author.incarnation})
        return await self._create(layout.attempt(number, shard, count), body, number)

    async def renew(self, number: int, shard: int, count: int, author: Author, beat: int) -> None:
        """A sign of life: others see another version of the attempt."""
        body = msgspec.json.encode({"runner": author.index, "incarnation": author.incarnation, "beat": beat})
        await self._store.put(layout.attempt(number, shard, count), body)

    async def drop(self, number: int, shard: int, count: int) -> None:
        """An attempt that ends because it was asked to does not count."""
        await self._store.delete([layout.attempt(number, shard, count)])

    async def author(self, number: int, shard: int, count: int) -> Author | None:
        """Who has begun it; None if that cannot be read."""
        key = layout.attempt(number, shard, count)
        if key not in self._authors:
            data = await self._store.get(key)
            self._authors[key] = _author(data) if data is not None else None
        return self._authors[key]

    async def commit(self, record: RunRecord, result: Result) -> Commit:
        """Make the result visible, unless another attempt was faster. -> the commit of the shard, whoever won."""
        number, shard = record.number, result.shard
        own = Commit(result.rows, result.errors, result.attempt)
        sha256 = hashlib.sha256(result.part).hexdigest()
        draft = Draft(attempt=result.attempt, rows=result.rows, errors=result.errors, sha256=sha256)
        errors = {layout.errors(number, shard, result.attempt): result.errors_file} if result.errors_file else {}
        item = Item(
            key=layout.part(number, shard, record.format),
            body=result.part,
            staging=layout.staging(number),
            beside={**errors, layout.draft(number, shard, result.attempt): msgspec.json.encode(draft)},
        )
        found = await commit(self._store, item, own, lambda: self._winner(record, shard))
        await self._note(number, shard, found)
        return found

    async def settle(self, record: RunRecord, shard: int) -> None:
        """Note the commit of a part whose runner could not do so any more."""
        await self._note(record.number, shard, await self._winner(record, shard))

    async def sweep(self, number: int) -> None:
        """Remove what earlier runs left, and say so. Parts of later runs are never touched."""
        await self._remove_earlier(number)
        await self._store.put(layout.swept(number), b"{}")

    async def close(self, record: RunRecord, seen: Seen) -> None:
        """All parts are there: say so for good, then tidy up."""
        number = record.number
        if record.mode == "overwrite":
            await self._remove_earlier(number)
        run = seen.runs[number]
        shards_done = tuple(
            _Booked(shard=shard, rows=each.rows, errors=each.errors, attempt=each.attempt)
            for shard, each in sorted(run.commits.items())
        )
        books = _Books(rows=run.rows, errors=run.errors, shards=shards_done)
        await self._create(layout.done(number), msgspec.json.encode(books), number)
        await self.tidy(record)

    async def tidy(self, record: RunRecord) -> None:
        """After the end: the file for other tools, and nothing that only the work needed."""
        number = record.number
        if not (await self.look()).seen.latest > number:
            await self._store.put(layout.SUCCESS, b"")
        entries = await self._store.list(f"_run/{number}")
        keys = [each.key for each in entries]
        seen = layout.see([layout.run(number), *keys])
        won = {(shard, each.attempt) for shard, each in seen.runs[number].commits.items()}
        kept = {layout.errors(number, shard, attempt) for shard, attempt in won}
        work = (f"_run/{number}/attempts/", f"_run/{number}/drafts/", f"{layout.staging(number)}/")
        lost = [key for key in keys if key.startswith(f"_run/{number}/errors/") and key not in kept]
        await self._store.delete([*lost, *(key for key in keys if key.startswith(work))])

    async def _winner(self, record: RunRecord, shard: int) -> Commit:
        """By the only draft; of several, by the one whose hash the part has; of a closed run, by its books."""
        number = record.number
        prefix = f"_run/{number}/drafts"
        keys = [each.key for each in await self._store.list(prefix) if each.key.startswith(f"{prefix}/{shard:05d}-")]
        drafts = await self._drafts(keys)
        # Asked after the drafts were read, which are removed only when the run is closed.
        books = await self._store.get(layout.done(number), limit_bytes=MOST_RECORD_BYTES)
        if books is not None:
            return _booked(books, shard, f"{self.uri}/{layout.done(number)}")
        if len(drafts) == 1:
            return Commit(drafts[0].rows, drafts[0].errors, drafts[0].attempt)
        key = layout.part(number, shard, record.format)
        data = await self._store.get(key, limit_bytes=2**31)
        found = winner(tuple(drafts), hashlib.sha256(data or b"").hexdigest())
        if found is None:
            raise StoreRefused(
                Reason.OUTPUT_IN_USE,
                f"{self.uri}/{key} was not written by this job: something else writes to its output; give each job an "
                "output of its own",
            )
        return found

    async def _drafts(self, keys: Iterable[str]) -> list[Draft]:
        found = []
        for key in keys:
            data = await self._store.get(key)
            if data is not None:
                try:
                    found.append(msgspec.json.decode(data, type=Draft))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise UserError(f"{self.uri}/{key} was changed by somebody: {error}") from error
        return found

    async def _note(self, number: int, shard: int, commit: Commit) -> None:
        await self._store.put(layout.commit(number, shard, commit), b"{}")

    async def _remove_earlier(self, number: int) -> None:
        seen = (await self.look()).seen
        if seen.latest > number:
            return  # this run has been overtaken itself
        earlier = [key for run, keys in seen.parts.items() if run < number for key in keys]
        _log.info("run %d removes %d parts of earlier runs", number, len(earlier))
        await self._store.delete([*([layout.SUCCESS] if seen.success else []), *earlier])

    async def _create(self, key: str, body: bytes, number: int) -> bool:
        return await self._store.create(key, body, staging=layout.staging(number))


class _Booked(msgspec.Struct, frozen=True):
    shard: int
    rows: int
    errors: int
    attempt: str


class _Books(msgspec.Struct, frozen=True):
    """`done.json`."""

    rows: int
    errors: int
    shards: tuple[_Booked, ...]


def _booked(data: bytes, shard: int, uri: str) -> Commit:
    try:
        found = next(each for each in msgspec.json.decode(data, type=_Books).shards if each.shard == shard)
    except (msgspec.DecodeError, UnicodeDecodeError, StopIteration) as error:
        raise UserError(f"{uri} was changed by somebody: {error!r}") from error
    return Commit(found.rows, found.errors, found.attempt)


def _author(data: bytes) -> Author | None:
    try:
        body = msgspec.json.decode(data)
        return Author(index=int(body["runner"]), incarnation=str(body["incarnation"]))
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return None
