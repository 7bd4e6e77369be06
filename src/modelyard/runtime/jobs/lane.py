"""One lane of a runner: takes a shard, reads, scores and encodes it, and commits it.

A runner has several, so that one reads or writes while another has the model.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs.machine import CAREFUL_FROM, Refuse, Try, over_budget
from modelyard.runtime.jobs.output import Author, Output, Result
from modelyard.runtime.jobs.reader import Reader
from modelyard.runtime.jobs.shards import Piece, RunRecord
from modelyard.runtime.scoring import parts
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.records import RowError
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.scored_model import ScoredModel
from modelyard.runtime.scoring.scorer import Scorer
from modelyard.wire.work import ScoreWork

_log = logging.getLogger(__name__)
T = TypeVar("T")
MOST_PART_BYTES = 256 * 2**20
_RENEW_SECONDS = 3.0
_AHEAD = 2
_DROP_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What all lanes of a runner share. committed: errors of the run so far, as last seen."""

    work: ScoreWork
    record: RunRecord
    output: Output
    model: ScoredModel
    mapping: Mapping
    author: Author
    committed_errors: Callable[[], int]


@dataclass(slots=True)
class _Draft:
    """A shard as far as it is scored."""

    part: parts.Part
    errors: int = 0
    errors_file: bytearray = field(default_factory=bytearray)


async def work_on(bench: Bench, reader: Reader, turn: Try, committing: Callable[[], None]) -> None:
    """Score and commit one shard. committing: called when what follows is better not interrupted.

    Raises Refused and what stores, formats and models raise. Cancelled before the commit, it takes its attempt back.
    """
    number = bench.record.number
    try:
        async with _renewed(bench, turn):
            attempt = secrets.token_hex(8)
            draft = await _scored(bench, reader, turn, attempt)
            committing()
            body = await asyncio.to_thread(draft.part.finish)
            _check_size(turn.shard, len(body))
            result = Result(
                shard=turn.shard,
                attempt=attempt,
                part=body,
                rows=draft.part.rows,
                errors=draft.errors,
                errors_file=bytes(draft.errors_file),
            )
            found = await bench.output.commit(bench.record, result)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_DROP_SECONDS):
                await bench.output.drop(number, turn.shard, turn.count)
        raise
    whose = "" if found.attempt == attempt else ", by another runner"
    _log.info("shard %d: %d rows, %d errors are committed%s", turn.shard, found.rows, found.errors, whose)


async def _scored(bench: Bench, reader: Reader, turn: Try, attempt: str) -> _Draft:
    careful = turn.count >= CAREFUL_FROM
    if careful:
        _log.warning("shard %d was begun %d times before; its rows are tried with care", turn.shard, turn.count - 1)
    backend = await bench.model.backend(careful=careful)
    scorer = Scorer(backend, bench.mapping, bench.model.outputs, bench.work.batch_rows)
    metadata = {"modelyard.run": str(bench.record.number), "modelyard.attempt": attempt}
    schema = bench.mapping.output_schema(bench.model.outputs)
    draft = _Draft(parts.Part(bench.record.format, schema, metadata))
    for piece in bench.record.shards[turn.shard]:
        async with _ahead(partial(reader.rows, piece)) as batches:
            async for batch in batches:
                async with bench.model.turn:
                    scored = await scorer.score(batch)
                await asyncio.to_thread(draft.part.write, scored.table)
                _check_size(turn.shard, draft.part.size_bytes)
                _note_errors(bench, draft, scored.errors, piece)
    return draft


def _check_size(shard: int, size_bytes: int) -> None:
    if size_bytes > MOST_PART_BYTES:
        raise Refused(
            Reason.PART_TOO_LARGE,
            f"shard {shard} became {size_bytes >> 20} MiB, at most {MOST_PART_BYTES >> 20} are put at once; keep fewer "
            "columns, or let the model give less per row",
        )


def _note_errors(bench: Bench, draft: _Draft, errors: tuple[RowError, ...], piece: Piece) -> None:
    """Count, keep where asked for, and stop where it is too much already."""
    if not errors:
        return
    key, policy = bench.record.sources[piece.source].key, bench.work.errors
    if policy.on_error == "fail":
        first = errors[0]
        raise Refused(
            Reason.ROW_FAILED,
            f"{key}, row {first.row}: {first.code}: {first.message}; correct the input, or let errors.onError be "
            "deadLetter or skip",
        )
    draft.errors += len(errors)
    if policy.on_error == "deadLetter":
        draft.errors_file += parts.errors_body(errors, key)
    over = over_budget(bench.committed_errors() + draft.errors, bench.record.total_rows, policy)
    if isinstance(over, Refuse):
        first = errors[0]
        raise Refused(over.reason, f"{over.message}; the latest: {key}, row {first.row}: {first.code}: {first.message}")


@asynccontextmanager
async def _ahead(start: Callable[[], Iterator[T]]) -> AsyncIterator[AsyncIterator[T]]:
    """Items of an iterator that runs in threads, a few ahead of whoever takes them."""
    queue: asyncio.Queue[T | None] = asyncio.Queue(_AHEAD)

    async def fill() -> None:
        items = start()
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            await queue.put(item)
        await queue.put(None)

    async def take() -> AsyncIterator[T]:
        while (item := await queue.get()) is not None:
            yield item

    try:
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(fill())
            try:
                yield take()
            finally:
                filling.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


@asynccontextmanager
async def _renewed(bench: Bench, turn: Try) -> AsyncIterator[None]:
    """Shows every few seconds that the attempt is alive. That it cannot be shown is no reason to end it."""

    async def renew() -> None:
        beat = 0
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            beat += 1
            try:
                await bench.output.renew(bench.record.number, turn.shard, turn.count, bench.author, beat)
            except Exception as error:
                _log.info("shard %d: no sign of life could be left: %s", turn.shard, error)

    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(renew())
            try:
                yield
            finally:
                renewing.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
