"""Messages of a source as one batch for the scorer, and which record came from where. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.base.errors import UserError
from modelyard.runtime.backends.port import Array
from modelyard.runtime.scoring import columns as column_values
from modelyard.runtime.scoring.mapping import Feed, Mapping
from modelyard.runtime.scoring.records import Batch, RowError, numbered
from modelyard.runtime.scoring.values import has_values
from modelyard.runtime.streams.fields import Fields, Problem, column_type
from modelyard.runtime.streams.payloads import arrow_table, json_records, sentence, too_deep
from modelyard.runtime.streams.records import Message
from modelyard.wire.work import TensorSpec

_MOST_SCHEMAS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Records by their numbers, from 0, over all messages in order; those are the rows of the batch, too.

    starts: the number of the first record of each message, and after the last one the count of all. packed: the
    message is a list of records, or an Arrow stream. values: of JSON, for each record; tables: of Arrow, for each
    message, with all its columns. A message that cannot be read has one record, which is among the batch's errors.
    """

    messages: tuple[Message, ...]
    starts: tuple[int, ...]
    packed: tuple[bool, ...]
    batch: Batch
    values: Sequence[Any] = ()
    tables: tuple[pa.Table | None, ...] = ()


@dataclass(slots=True)
class _Found:
    """What the messages read so far have given."""

    starts: list[int] = field(default_factory=lambda: [0])
    packed: list[bool] = field(default_factory=list)
    bad: dict[int, Problem] = field(default_factory=dict)

    def add(self, count: int, *, packed: bool) -> None:
        self.starts.append(self.starts[-1] + count)
        self.packed.append(packed)


class Decoder:
    """Of one source and one model. Its arguments must have been checked (`encode.Codec`).

    mapping: of every batch that it gives: one column for each input, called like it.
    """

    def __init__(
        self,
        format_name: str,
        inputs: Sequence[TensorSpec],
        columns: Sequence[str],
        keep: Sequence[str],
        *,
        any_type: bool = False,
    ) -> None:
        """any_type: what is kept of Arrow stays Arrow, so that it need not have values in JSON."""
        self._inputs = tuple(inputs)
        self._columns = tuple(columns)
        self._keep = tuple(keep)
        self._any_type = any_type
        self._fields = Fields(self._inputs, self._columns)
        self._schema = pa.schema([(spec.name, column_type(spec)) for spec in self._inputs])
        self._mappings: dict[pa.Schema, Mapping | Problem] = {}
        self._unpack = {"json": self._json, "arrow": self._arrow, "raw": self._raw}[format_name]
        feeds = tuple(Feed(spec=spec, columns=(spec.name,)) for spec in self._inputs)
        self.mapping = Mapping(schema=self._schema, feeds=feeds, keep=())

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Never raises for what is in a message."""
        return self._unpack(tuple(messages))

    def _json(self, messages: tuple[Message, ...]) -> Decoded:
        found = _Found()
        values: list[Any] = []
        for message in messages:
            records = json_records(message.payload)
            if records.bad:
                found.bad |= {len(values) + place: problem for place, problem in records.bad.items()}
            values.extend(records.values)
            found.add(len(records.values), packed=records.packed)
        self._find_deep(values, found.bad)
        numbers = np.arange(len(values), dtype=np.int64)
        if found.bad:
            numbers = np.delete(numbers, list(found.bad))
        records_left = [values[number] for number in numbers] if found.bad else values
        done = self._fields.sort_out(records_left)
        for place, problem in done.bad.items():
            found.bad[int(numbers[place])] = problem
        batch = self._batch(done.arrays, numbers[list(done.good)] if done.bad else numbers, found.bad)
        return self._decoded(messages, found, batch, values=values)

    def _raw(self, messages: tuple[Message, ...]) -> Decoded:
        """The payload is the value."""
        found = _Found()
        for _ in messages:
            found.add(1, packed=False)
        payloads = pa.array([each.payload for each in messages], pa.binary())
        batch = self._batch((payloads,), np.arange(len(messages), dtype=np.int64), {})
        return self._decoded(messages, found, batch)

    def _arrow(self, messages: tuple[Message, ...]) -> Decoded:
        found = _Found()
        tables: list[pa.Table | None] = []
        pieces: list[tuple[pa.Array, ...]] = []
        rows: list[Any] = []
        errors: list[RowError] = []
        for message in messages:
            first = found.starts[-1]
            table = arrow_table(message.payload)
            if isinstance(table, Problem):
                tables.append(None)
                found.bad[first] = table
                found.add(1, packed=True)
                continue
            tables.append(table)
            found.add(table.num_rows, packed=True)
            taken = self._taken(table, first)
            if isinstance(taken, Problem):
                found.bad |= dict.fromkeys(range(first, first + table.num_rows), taken)
            else:
                pieces.append(taken[0])
                rows.append(taken[1].rows)
                errors += taken[1].errors
        arrays = tuple(
            pa.concat_arrays([each[number] for each in pieces]) if pieces else pa.array([], kind.type)
            for number, kind in enumerate(self._schema)
        )
        numbers = np.concatenate([np.array([], np.int64), *rows])
        batch = self._batch(arrays, numbers, found.bad, errors)
        return self._decoded(messages, found, batch, tables=tuple(tables))

    def _taken(self, table: pa.Table, first: int) -> tuple[tuple[pa.Array, ...], Batch] | Problem:
        """(the columns for the model, the records that have them with the errors of the others)."""
        mapping = self._mapping_of(table.schema)
        if isinstance(mapping, Problem):
            return mapping
        try:
            used = table.select([table.schema.get_field_index(name) for name in mapping.read_columns])
            parts = [mapping.tensors(each) for each in mapping.alike(numbered(used, first))]
            pieces = [self._columns_of(tensors, batch.table.num_rows) for tensors, batch in parts]
        except (pa.ArrowException, UserError, ValueError, TypeError, NotImplementedError) as error:
            # Types that fit and values that cannot be had in spite of it: Arrow has very many of both.
            return Problem("Unreadable", f"the columns for the model cannot be read: {sentence(error)}")
        batches = [batch for _, batch in parts]
        if len(batches) == 1:
            return pieces[0], batches[0]
        rows = np.concatenate([each.rows for each in batches])
        order = pa.array(np.argsort(rows))
        arrays = tuple(pa.concat_arrays(list(each)).take(order) for each in zip(*pieces, strict=True))
        errors = tuple(error for each in batches for error in each.errors)
        return arrays, Batch(table=batches[0].table, rows=np.sort(rows), errors=errors)

    def _columns_of(self, tensors: dict[str, Array], rows: int) -> tuple[pa.Array, ...]:
        return tuple(
            column_values.column(tensors[spec.name], self._schema.field(number).type, rows)
            for number, spec in enumerate(self._inputs)
        )

    def _mapping_of(self, schema: pa.Schema) -> Mapping | Problem:
        """By name, or the columns that make up a row; publishers may change their schema at any time."""
        schema = schema.remove_metadata()
        found = self._mappings.get(schema)
        if found is None:
            if len(self._mappings) >= _MOST_SCHEMAS:
                self._mappings.clear()
            found = self._mappings[schema] = self._resolved(schema)
        return found

    def _resolved(self, schema: pa.Schema) -> Mapping | Problem:
        names = dict.fromkeys(self._fields.names)
        twice = [name for name in (*names, *self._keep) if schema.names.count(name) > 1]
        if twice:
            return Problem("SchemaMismatch", f"there are several columns {', '.join(dict.fromkeys(twice))}")
        odd = [name for name in self._keep if name in schema.names and not self._can_keep(schema.field(name).type)]
        if odd:
            told = ", ".join(f"{name} ({schema.field(name).type})" for name in odd)
            return Problem("SchemaMismatch", f"the type of {told} cannot be kept; leave it out of spec.sink.keep")
        # Others are left out: what is not named is never taken for an input by its place.
        there = pa.schema([schema.field(name) for name in names if name in schema.names])
        absent = [name for name in names if name not in schema.names]
        if absent:
            shown = ", ".join(schema.names[:12]) or "none"
            told = f"there is no column {', '.join(absent)}; there are {shown}{self._fields.hint}"
            return Problem("MissingField", told)
        try:
            return Mapping.resolve(there, self._inputs, self._columns, ())
        except UserError as error:
            return Problem("SchemaMismatch", error.message)

    def _can_keep(self, kind: pa.DataType) -> bool:
        return self._any_type or has_values(kind)

    def _find_deep(self, values: Sequence[Any], bad: dict[int, Problem]) -> None:
        """What is kept is written again, and must be as readable as it was."""
        for name in self._keep:
            for number, value in enumerate(values):
                kept = value.get(name) if type(value) is dict else None
                if type(kept) in (dict, list) and number not in bad and too_deep(kept):
                    bad[number] = Problem("Unreadable", f"{name} is nested too deeply")

    def _batch(
        self,
        arrays: Sequence[pa.Array],
        rows: Any,
        bad: dict[int, Problem],
        errors: Sequence[RowError] = (),
    ) -> Batch:
        told = [RowError(row=number, code=each.code, message=each.message) for number, each in bad.items()]
        return Batch(
            table=pa.table(list(arrays), schema=self._schema),
            rows=rows,
            errors=tuple(sorted([*errors, *told], key=lambda each: each.row)),
        )

    def _decoded(self, messages: tuple[Message, ...], found: _Found, batch: Batch, **more: Any) -> Decoded:
        return Decoded(messages=messages, starts=tuple(found.starts), packed=tuple(found.packed), batch=batch, **more)
