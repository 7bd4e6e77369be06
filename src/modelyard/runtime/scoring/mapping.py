"""From the columns of a data set to the inputs of a model, and from its outputs to columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import Array
from modelyard.runtime.scoring import columns as column_values
from modelyard.runtime.scoring.columns import Problem
from modelyard.runtime.scoring.records import Batch, RowError
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.values import has_values, json_values
from modelyard.wire.work import TensorSpec

_SHOWN = 12
_ARROW = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float16(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """One input of the model and the columns that it is made of: one, or several that are put side by side."""

    spec: TensorSpec
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapping:
    """Resolved once for a run. keep: columns that go to the output as they are. binary: outputs of BYTES are not made
    text."""

    schema: pa.Schema
    feeds: tuple[Feed, ...]
    keep: tuple[str, ...]
    binary: bool = False

    @classmethod
    def resolve(
        cls, schema: pa.Schema, inputs: Sequence[TensorSpec], columns: Sequence[str], keep: Sequence[str]
    ) -> "Mapping":
        """Raises Refused (SchemaMismatch) with everything that does not fit."""
        used = dict.fromkeys([*columns, *keep, *(spec.name for spec in inputs)])
        twice = [name for name in used if schema.names.count(name) > 1]
        if twice:
            raise Refused(
                Reason.SCHEMA_MISMATCH, f"there are several columns {', '.join(twice[:_SHOWN])}; give each its own name"
            )
        problems = [_absent(name, schema, "output.keep") for name in keep if name not in schema.names]
        problems += [
            f"output.keep: column {name} is {schema.field(name).type}, which cannot be kept"
            for name in keep
            if name in schema.names and pa.types.is_union(schema.field(name).type)
        ]
        problems += [_absent(name, schema, "input.columns") for name in columns if name not in schema.names]
        feeds = []
        for spec in inputs:
            found = _feed(spec, schema, inputs, columns, keep)
            if isinstance(found, str):
                problems.append(found)
            else:
                feeds.append(found)
                problems += [told for name in found.columns if (told := _unfit(found, name, schema))]
        if problems:
            raise Refused(Reason.SCHEMA_MISMATCH, "; ".join(dict.fromkeys(problems)))
        return cls(schema=schema, feeds=tuple(feeds), keep=tuple(keep))

    @property
    def read_columns(self) -> tuple[str, ...]:
        """What must be read of a file."""
        return tuple(dict.fromkeys([*(name for feed in self.feeds for name in feed.columns), *self.keep]))

    def tensors(self, batch: Batch) -> tuple[dict[str, Array], Batch]:
        """(the inputs of the rows that can be scored, those rows with the errors of the others)."""
        problems: list[Problem] = []
        found = {}
        for feed in self.feeds:
            arrays = [batch.table.column(name).combine_chunks() for name in feed.columns]
            found[feed.spec.name], more = column_values.tensor(feed.spec, feed.columns, arrays)
            problems += more
        if not problems:
            return found, batch
        bad = np.zeros(len(batch.rows), bool)
        told: dict[int, RowError] = {}
        for problem in problems:
            for index in np.flatnonzero(problem.rows & ~bad):
                told[int(index)] = self.error(batch, int(index), problem.code, problem.message(int(index)))
            bad |= problem.rows
        errors = tuple(told[index] for index in sorted(told))
        good = ~bad
        left = Batch(table=batch.table.filter(pa.array(good)), rows=batch.rows[good], errors=(*batch.errors, *errors))
        return {name: array[good] for name, array in found.items()}, left

    def alike(self, batch: Batch) -> tuple[Batch, ...]:
        """Parts whose rows can be put side by side: where the signature leaves a size open, rows may differ in it.

        One part is the batch itself; of several none has its errors.
        """
        marks = [
            column_values.sizes(feed.spec, batch.table.column(feed.columns[0]).combine_chunks())
            for feed in self.feeds
            if len(feed.columns) == 1 and -1 in feed.spec.shape[1:] and batch.table.num_rows > 1
        ]
        marks = [each for each in marks if each is not None]
        if not marks:
            return (batch,)
        found: dict[Any, list[int]] = {}
        for place, mark in enumerate(zip(*marks, strict=True)):
            found.setdefault(mark, []).append(place)
        if len(found) == 1:
            return (batch,)
        return tuple(
            Batch(table=batch.table.take(pa.array(places)), rows=batch.rows[places]) for places in found.values()
        )

    def error(self, batch: Batch, index: int, code: str, message: str) -> RowError:
        """An error of a row of the batch, with its kept columns."""
        key = {name: _told(batch.table.column(name).slice(index, 1)) for name in self.keep}
        return RowError(row=int(batch.rows[index]), code=code, message=message, key=key)

    def output_schema(self, outputs: Sequence[TensorSpec]) -> pa.Schema:
        """Kept columns, then outputs. An output that is called as a kept column gets `_1` added, `_2` and so on."""
        fields = [self.schema.field(name) for name in self.keep]
        names = unclashed(self.keep, [spec.name for spec in outputs])
        for name, spec in zip(names, outputs, strict=True):
            kind = pa.binary() if self.binary and spec.datatype == "BYTES" else _ARROW[spec.datatype]
            fields.append(pa.field(name, _nested_type(kind, spec)))
        return pa.schema(fields)

    def output_table(self, batch: Batch, outputs: Sequence[TensorSpec], found: dict[str, Array]) -> pa.Table:
        """The rows of the batch with what the model gave for them. Raises ValueError for outputs of other shapes."""
        schema = self.output_schema(outputs)
        kept = [batch.table.column(name) for name in self.keep]
        given = [
            column_values.column(found[spec.name], schema.field(len(kept) + number).type, batch.table.num_rows)
            for number, spec in enumerate(outputs)
        ]
        return pa.table([*kept, *given], schema=schema)


def _told(value: pa.ChunkedArray) -> Any:
    """A value for people to find the row by."""
    return json_values(value)[0] if has_values(value.type) else f"({value.type})"


def unclashed(taken: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names, with `_1` added to one that is taken already, `_2` and so on."""
    used = set(taken)
    found = []
    for wanted in names:
        name, count = wanted, 0
        while name in used:
            count += 1
            name = f"{wanted}_{count}"
        used.add(name)
        found.append(name)
    return found


def _feed(
    spec: TensorSpec, schema: pa.Schema, inputs: Sequence[TensorSpec], columns: Sequence[str], keep: Sequence[str]
) -> Feed | str:
    """The columns of an input, or what is the matter."""
    matrix = len(inputs) == 1 and len(spec.shape) == 2
    if columns and matrix and not (len(columns) == 1 and _is_list(schema, columns[0])):
        return _side_by_side(spec, tuple(name for name in columns if name in schema.names), "input.columns names")
    if spec.name in schema.names and (not columns or spec.name in columns):
        return Feed(spec=spec, columns=(spec.name,))
    if len(inputs) == 1 and len(columns) == 1 and columns[0] in schema.names:
        return Feed(spec=spec, columns=(columns[0],))
    rest = tuple(name for name in schema.names if name not in keep)
    if (
        matrix
        and not columns
        and len(set(rest)) == len(rest) == spec.shape[1]
        and all(_is_number(schema.field(n).type) for n in rest)
    ):
        return Feed(spec=spec, columns=rest)
    if {"image"} == set(rest) - {"path"} and len(inputs) == 1:
        return Feed(spec=spec, columns=("image",))
    hint = f", or list its {spec.shape[1]} columns in input.columns" if matrix and spec.shape[1] > 1 else ""
    return f"{_absent(spec.name, schema, f'input {spec.name} of the model')}{hint}"


def _side_by_side(spec: TensorSpec, columns: tuple[str, ...], who: str) -> Feed | str:
    if spec.shape[1] not in (-1, len(columns)):
        return f"{who} {len(columns)} columns, and input {spec.name} of the model takes {spec.shape[1]}"
    return Feed(spec=spec, columns=columns)


def _absent(name: str, schema: pa.Schema, who: str) -> str:
    close = get_close_matches(name, schema.names, 1)
    there = ", ".join(schema.names[:_SHOWN]) + (", ..." if len(schema.names) > _SHOWN else "") or "none"
    return f"{who}: there is no column {name}" + (f", did you mean {close[0]}?" if close else f"; there are {there}")


def _unfit(feed: Feed, name: str, schema: pa.Schema) -> str:
    """What is wrong with the type of a column, "" if nothing."""
    found = column_values.plain(schema.field(name).type)
    wanted = feed.spec.datatype
    depth = len(feed.spec.shape) - (2 if len(feed.columns) > 1 else 1)
    inner = found
    while _nested(inner) and depth > 0:
        inner, depth = column_values.plain(inner.value_type), depth - 1
    trailing = feed.spec.shape[1:] if len(feed.columns) == 1 else ()
    flat = all(size == 1 for size in trailing)
    if pa.types.is_binary(found) and wanted != "BYTES" and len(feed.spec.shape) == 4:
        return ""  # images are decoded
    if _nested(inner) or (depth > 0 and not flat and inner is found):
        return (
            f"column {name} is {found}, and input {feed.spec.name} of the model takes {wanted} of shape {_shape(feed)}"
        )
    if _converts(inner, wanted):
        return ""
    return f"column {name} is {found}, and input {feed.spec.name} of the model takes {wanted}"


def _shape(feed: Feed) -> str:
    return str(list(feed.spec.shape))


def _converts(found: pa.DataType, wanted: str) -> bool:
    if wanted == "BYTES":
        return bool(pa.types.is_string(found) or pa.types.is_binary(found) or pa.types.is_large_string(found))
    if wanted == "BOOL":
        return bool(pa.types.is_boolean(found))
    if wanted.startswith("FP"):
        return _is_number(found)
    return bool(pa.types.is_integer(found) or pa.types.is_boolean(found))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_list(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and _nested(schema.field(name).type)


def _nested_type(kind: pa.DataType, spec: TensorSpec) -> pa.DataType:
    for size in reversed(spec.shape[1:]):
        if size == 1 and len(spec.shape) == 2:
            continue
        kind = pa.list_(kind, size) if size > 0 else pa.list_(kind)
    return kind
