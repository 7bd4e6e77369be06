"""Batches through a model, with the rows that it cannot score found one by one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends.port import Array, Backend, WorkerMissing
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.records import Batch, RowError
from modelyard.wire.work import TensorSpec

_ALIKE = 50
"""Rows refused one by one, none accepted: after so many the rest of the batch is taken to be like them."""
_MOST_BYTES = 32 * 2**20
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """table: the rows that were scored, in order; errors: all others of the batch, by row."""

    table: pa.Table
    errors: tuple[RowError, ...]


@dataclass(slots=True)
class _Found:
    """What was found out about a batch so far. bad: place -> (code, message)."""

    pieces: list[tuple[int, int, dict[str, Array]]] = field(default_factory=list)
    bad: dict[int, tuple[str, str]] = field(default_factory=dict)
    refused: int = 0
    accepted: bool = False
    halved: bool = False


class Scorer:
    """One call of `score` at a time."""

    def __init__(self, backend: Backend, mapping: Mapping, outputs: Sequence[TensorSpec], batch_rows: int) -> None:
        self._backend = backend
        self._mapping = mapping
        self._outputs = tuple(outputs)
        self._batch_rows = batch_rows

    async def score(self, batch: Batch) -> Scored:
        """Every row of the batch is scored or an error. Raises RetryLater where the model cannot be asked at all."""
        parts = self._mapping.alike(batch)
        if len(parts) == 1:
            return await self._score(batch)
        return _merged([(each, await self._score(each)) for each in parts], batch.errors)

    async def _score(self, batch: Batch) -> Scored:
        inputs, good = self._mapping.tensors(batch)
        answers: list[dict[str, Array]] = []
        bad: dict[int, tuple[str, str]] = {}
        size = self._rows_at_once(inputs, good.table.num_rows)
        for start in range(0, good.table.num_rows, size):
            stop = min(start + size, good.table.num_rows)
            found = _Found()
            await self._halve(inputs, start, stop, found)
            answers += [self._checked(*piece) for piece in found.pieces]
            bad |= found.bad
        errors = [*good.errors, *(self._mapping.error(good, place, *why) for place, why in bad.items())]
        return Scored(table=self._table(good, answers, bad), errors=tuple(sorted(errors, key=lambda each: each.row)))

    def _rows_at_once(self, inputs: dict[str, Array], rows: int) -> int:
        """As many as asked for, unless they are so large that a call would take too much memory."""
        row_bytes = sum(array.nbytes for array in inputs.values()) / max(rows, 1)
        return max(1, min(self._batch_rows, int(_MOST_BYTES / max(row_bytes, 1.0))))

    async def _halve(self, inputs: dict[str, Array], start: int, stop: int, found: _Found) -> None:
        """Score these rows; where the model refuses them, or ends, look for the rows that make it so."""
        if start >= stop:
            return
        alike = self._alike(found)
        if alike is not None:
            found.bad |= dict.fromkeys(range(start, stop), alike)
            return
        code, message = await self._ask(inputs, start, stop, found)
        if not code:
            return
        if stop - start == 1:
            found.bad[start] = (code, message)
            found.refused += code == "Refused"
            return
        found.halved = True
        middle = (start + stop) // 2
        await self._halve(inputs, start, middle, found)
        await self._halve(inputs, middle, stop, found)

    async def _ask(self, inputs: dict[str, Array], start: int, stop: int, found: _Found) -> tuple[str, str]:
        """("", "") when it answered, else a code and its words.

        A model that ended is asked the same once more for a whole batch, where it may have been an accident, and for a
        single row, which must not be blamed for one.
        """
        part = {name: array[start:stop] for name, array in inputs.items()}
        last: RetryLater | None = None
        for _ in range(1 if found.halved and stop - start > 1 else 2):
            if last is not None:
                pause = last.retry_after_seconds or _PAUSE_SECONDS
                await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
            try:
                answer = await self._backend.infer(part)
            except UserError as error:
                return "Refused", error.message.removeprefix("the model refused the values: ")
            except WorkerMissing:
                raise
            except RetryLater as error:
                last = error
            else:
                found.pieces.append((start, stop, dict(answer)))
                found.accepted = True
                return "", ""
        assert last is not None
        return "Crashed", last.message

    def _alike(self, found: _Found) -> tuple[str, str] | None:
        """What the rest of a batch is taken to end with, if nothing was accepted and all was refused alike."""
        if found.accepted or found.refused < _ALIKE:
            return None
        reasons = set(found.bad.values())
        return next(iter(reasons)) if len(reasons) == 1 else None

    def _checked(self, start: int, stop: int, answer: dict[str, Array]) -> dict[str, Array]:
        """What the model gave for some rows, if it is for as many."""
        for spec in self._outputs:
            given = answer.get(spec.name)
            if given is None or len(given) != stop - start:
                raise _odd(f"{0 if given is None else len(given)} rows of output {spec.name} for {stop - start}")
        return answer

    def _table(self, good: Batch, answers: list[dict[str, Array]], bad: dict[int, tuple[str, str]]) -> pa.Table:
        """The rows that were scored, in order, with what the model gave for them."""
        if not answers:
            return self._mapping.output_schema(self._outputs).empty_table()
        scored = good
        if bad:
            keep = np.ones(good.table.num_rows, bool)
            keep[list(bad)] = False
            scored = replace(good, table=good.table.filter(pa.array(keep)), rows=good.rows[keep], errors=())
        outputs = {
            spec.name: answers[0][spec.name]
            if len(answers) == 1
            else np.concatenate([each[spec.name] for each in answers])
            for spec in self._outputs
        }
        try:
            return self._mapping.output_table(scored, self._outputs, outputs)
        except (ValueError, TypeError, AttributeError, pa.ArrowException) as error:
            raise _odd(str(error)) from error


def _merged(parts: Sequence[tuple[Batch, Scored]], more: tuple[RowError, ...]) -> Scored:
    """Parts of one batch, its rows in order again. more: errors of the batch that are in no part."""
    rows = []
    for batch, scored in parts:
        bad = [each.row for each in scored.errors]
        rows.append(batch.rows[~np.isin(batch.rows, bad)])
    order = np.argsort(np.concatenate(rows), kind="stable")
    table = pa.concat_tables([scored.table for _, scored in parts]).take(pa.array(order))
    errors = [*more, *(each for _, scored in parts for each in scored.errors)]
    return Scored(table=table, errors=tuple(sorted(errors, key=lambda each: each.row)))


def _odd(what: str) -> UserError:
    return UserError(
        f"the model does not give what its signature says: {what}; correct it, or the outputs in the Model"
    )
