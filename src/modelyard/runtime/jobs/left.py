"""What a program left in OUTPUT_DIR, committed once.

1. All files go to `_run/<n>/files/<attempt>/`. 2. One put-if-absent of `_run/<n>/commit.json`, which names the
attempt and its files, decides whose they are. 3. They get their names; whoever is interrupted here is followed by
another that reads the commit and goes on. 4. `_run/<n>/done.json` closes the run. Each file appears whole; all of
them are there at the end.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs import layout, machine, model_folder
from modelyard.runtime.jobs.layout import Seen
from modelyard.runtime.jobs.machine import Finish, Follow, Refuse, Take, Wish
from modelyard.runtime.jobs.output import Output
from modelyard.runtime.jobs.shards import RunRecord
from modelyard.runtime.jobs.told import Told
from modelyard.runtime.scoring.refused import Refused
from modelyard.storage import digest as digests
from modelyard.storage.stores import Store
from modelyard.wire.report import JobReport, Metric
from modelyard.wire.work import RunWork

_log = logging.getLogger(__name__)
_MOST_FILES = 10_000
_MOST_FILE_BYTES = 4 * 2**30
_LOOK_SECONDS = 0.5
_RESERVED = ("_run", layout.SUCCESS)


class Committed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`_run/<n>/commit.json`. digest, format: of the artifact that becomes a Model."""

    attempt: str
    files: tuple[str, ...]
    digest: str = ""
    format: str = ""
    metrics: tuple[Metric, ...] = ()


class Left:
    """The output of one run of a program."""

    def __init__(self, work: RunWork, store: Store, rank: int, record: RunRecord) -> None:
        self._work = work
        self._store = store
        self._rank = rank
        self._record = record
        self._committed: Committed | None = None
        self.closed = False

    @classmethod
    async def open(cls, work: RunWork, store: Store, rank: int) -> "Left":
        """The run of this job: begun by rank 0, awaited by the others. Raises Refused."""
        assert work.output is not None
        output = Output(store)
        wish = Wish(job=work.job, identity=work.job, mode=work.output.mode, uri=store.uri)
        while True:
            seen = (await output.look()).seen
            records = await output.records(seen)
            match machine.open_output(seen, records, wish):
                case Finish(number) | Follow(number):
                    found = cls(work, store, rank, records[number])
                    found._committed = await found._read()
                    found.closed = seen.runs[number].closed
                    if not found.closed:
                        _refuse_overtaken(seen, number)
                    if found._committed is not None and not found.closed and rank == 0:
                        await found._publish(found._committed)
                    return found
                case Refuse(reason, message):
                    raise Refused(reason, message)
                case Take(number) if rank == 0:
                    record = RunRecord(job=work.job, identity=work.job, number=number, mode=wish.mode)
                    await output.take(record)
                case _:
                    await asyncio.sleep(_LOOK_SECONDS)

    @property
    def number(self) -> int:
        """Of the run."""
        return self._record.number

    def report(self, told: Told) -> JobReport:
        """The run is closed, or this rank has done its part."""
        committed = self._committed or Committed(attempt="", files=())
        return JobReport(
            run=self._record.number,
            done=True,
            percent=100,
            metrics=committed.metrics or told.metrics,
            output=self._store.uri[:1024],
            digest=committed.digest,
            format=committed.format,
        )

    async def commit(self, folder: Path, told: Told, *, attempt: int, stop: asyncio.Event) -> bool:
        """Make the files visible when all ranks have ended well. False: stopped while waiting for them."""
        if self._rank:
            await self._store.put(self._rank_key(attempt, self._rank), b"{}")
            return True
        if not await self._all_ranks(attempt, stop):
            return False
        token = secrets.token_hex(8)
        mine = await asyncio.to_thread(self._describe, folder, told, token)
        for name in mine.files:
            body = await asyncio.to_thread((folder / name).read_bytes)
            await self._store.put(self._staged(token, name), body)
        await self._still_ours()
        await self._create(self._commit_key(), msgspec.json.encode(mine))
        self._committed = await self._read() or mine
        await self._publish(self._committed)
        return True

    async def tidy(self) -> None:
        """After the end: the file for other tools, and nothing that only the work needed."""
        number = self._record.number
        keys = [each.key for each in await self._store.list(f"_run/{number}")]
        work = (f"_run/{number}/files/", f"_run/{number}/ranks/", f"{layout.staging(number)}/")
        if machine.overtaken((await Output(self._store).look()).seen, number) is None:
            await self._store.put(layout.SUCCESS, b"")
        await self._store.delete([key for key in keys if key.startswith(work)])

    def _describe(self, folder: Path, told: Told, token: str) -> Committed:
        """In a thread: which files, and the digest of the artifact among them."""
        artifact = self._work.artifact
        digest = format_name = ""
        if artifact is not None:
            path = folder / artifact.path
            if not path.exists():
                raise Refused(
                    Reason.OUTPUT_MISSING,
                    f"the program ended well and left nothing at {artifact.path} in OUTPUT_DIR, of which Model "
                    f"{artifact.name} was to be made; let it write there, or correct spec.run.outputModel.path",
                )
            if path.is_dir():
                model_folder.describe(path, self._work, told)
            digest = digests.inventory(path).digest
            format_name = artifact.format
        files = tuple(_files(folder))
        return Committed(attempt=token, files=files, digest=digest, format=format_name, metrics=told.metrics)

    async def _all_ranks(self, attempt: int, stop: asyncio.Event) -> bool:
        wanted = {self._rank_key(attempt, rank) for rank in range(1, self._work.nodes)}
        said = time.monotonic()
        while wanted:
            there = {each.key for each in await self._store.list(f"_run/{self._record.number}/ranks")}
            if wanted <= there:
                return True
            if stop.is_set():
                return False
            if time.monotonic() - said > 10.0:
                said = time.monotonic()
                _log.info("waiting for %d of %d nodes", len(wanted - there), self._work.nodes)
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def _publish(self, committed: Committed) -> None:
        await self._still_ours()
        number = self._record.number
        if self._record.mode == "overwrite":
            await self._remove_earlier(committed)
        for name in committed.files:
            staged = self._staged(committed.attempt, name)
            body = await self._store.get(staged, limit_bytes=_MOST_FILE_BYTES)
            if body is not None:  # else somebody else has tidied up already
                await self._reveal(name, body)
        await self._create(layout.done(number), msgspec.json.encode(committed))
        self.closed = True
        await self.tidy()
        _log.info("%d files are committed to %s", len(committed.files), self._store.uri)

    async def _still_ours(self) -> None:
        _refuse_overtaken((await Output(self._store).look()).seen, self._record.number)

    async def _reveal(self, name: str, body: bytes) -> None:
        """Whoever follows the commit does the same with the same bytes, however late it comes."""
        if self._record.mode == "overwrite":
            await self._store.replace(name, body, staging=layout.staging(self._record.number))
        else:
            await self._create(name, body)

    async def _remove_earlier(self, committed: Committed) -> None:
        """The files of earlier runs, by what they committed; nothing else, and none that will be there again: another
        process of this job may have replaced it already."""
        for number in range(1, self._record.number):
            data = await self._store.get(f"_run/{number}/commit.json")
            if data is not None:
                earlier = msgspec.json.decode(data, type=Committed)
                gone = sorted({*earlier.files} - {*committed.files})
                await self._store.delete([layout.SUCCESS, *gone, f"_run/{number}/commit.json"])

    async def _read(self) -> Committed | None:
        data = await self._store.get(self._commit_key())
        return None if data is None else msgspec.json.decode(data, type=Committed)

    async def _create(self, key: str, body: bytes) -> bool:
        return await self._store.create(key, body, staging=layout.staging(self._record.number))

    def _commit_key(self) -> str:
        return f"_run/{self._record.number}/commit.json"

    def _staged(self, token: str, name: str) -> str:
        return f"_run/{self._record.number}/files/{token}/{name}"

    def _rank_key(self, attempt: int, rank: int) -> str:
        return f"_run/{self._record.number}/ranks/{attempt}-{rank}"


def _refuse_overtaken(seen: Seen, number: int) -> None:
    refused = machine.overtaken(seen, number)
    if refused is not None:
        raise Refused(refused.reason, refused.message)


def _files(folder: Path) -> Iterable[str]:
    """Relative names, sorted. Raises Refused for what cannot be committed."""
    found = []
    for parent, folders, names in os.walk(folder):
        for name in (*names, *(each for each in folders if (Path(parent) / each).is_symlink())):
            path = Path(parent) / name
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                raise Refused(
                    Reason.INVALID, f"OUTPUT_DIR/{relative} is a link or no regular file; let the program write files"
                )
            size = path.stat().st_size
            if size > _MOST_FILE_BYTES:
                raise Refused(
                    Reason.INVALID,
                    f"OUTPUT_DIR/{relative} has {size} bytes, at most {_MOST_FILE_BYTES} are committed; split it",
                )
            if relative.split("/")[0] in _RESERVED or "\n" in relative or "\\" in relative:
                raise Refused(Reason.INVALID, f"OUTPUT_DIR/{relative}: this name is reserved; use another one")
            found.append(relative)
    if len(found) > _MOST_FILES:
        raise Refused(
            Reason.INVALID, f"OUTPUT_DIR holds {len(found)} files, at most {_MOST_FILES} are committed; pack them"
        )
    return sorted(found)
