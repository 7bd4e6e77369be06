"""What a scored batch becomes: messages as they came, or a table for files; and dead letters. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.mapping import Mapping as Feeds
from modelyard.runtime.scoring.mapping import unclashed
from modelyard.runtime.scoring.records import RowError
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.scorer import Scored
from modelyard.runtime.scoring.values import json_values
from modelyard.runtime.streams import letters, tables
from modelyard.runtime.streams.decode import Decoded, Decoder
from modelyard.runtime.streams.payloads import raw_elements, rows_of
from modelyard.runtime.streams.records import Message, Outgoing
from modelyard.wire.work import StreamWork, TensorSpec

MESSAGE_FORMATS = tuple(letters.CONTENT_TYPES)
FILE_FORMATS = ("parquet", "csv", "jsonl", "arrow")
_encode = msgspec.json.Encoder().encode
_FLAT = ((-1,), (-1, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """outgoing: in the order of messages, for each its outputs and then its dead letter; for files dead letters alone.

    records, dead_letters: how many records there are, and how many of them are bad. table: for files.
    """

    outgoing: tuple[Outgoing, ...]
    records: int
    dead_letters: int
    table: pa.Table | None = None


class Codec:
    """Between the messages of one stream and its model, both ways.

    mapping: for the scorer of what `decode` gives. files: the sink takes files, in `format`, which is else that of
    messages. empty: the columns of a file without any records.
    """

    def __init__(self, work: StreamWork) -> None:
        """Raises Refused (SchemaMismatch) with everything that does not fit together."""
        source, sink, model = work.source, work.sink, work.model
        self.files = not sink.stream
        self.format = sink.format or ("parquet" if self.files else source.format)
        problems = [*_unfit_source(work), *_unfit_sink(work, self.format, files=self.files)]
        if problems:
            raise Refused(Reason.SCHEMA_MISMATCH, "; ".join(problems))
        self._keep = tuple(sink.keep)
        any_type = self.format == "arrow" and not self.files
        self._decoder = Decoder(source.format, model.inputs, source.columns, sink.keep, any_type=any_type)
        self.mapping: Feeds = replace(self._decoder.mapping, binary=self.format == "raw")
        self._names = unclashed(self._keep, [spec.name for spec in model.outputs])
        outputs = self.mapping.output_schema(model.outputs)
        kept = [pa.field(name, pa.string()) for name in self._keep]
        self.empty = pa.schema(
            [*kept, *(each.with_name(name) for each, name in zip(outputs, self._names, strict=True))]
        )

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """One batch of all their records. Never raises for what is in a message."""
        return self._decoder.decode(messages)

    def encode(self, decoded: Decoded, scored: Scored, most_bytes: int = 0) -> Encoded:
        """Every record in an output (files: a row) or a dead letter. most_bytes: of a message for the sink, 0: any.

        A message whose output is larger goes to the dead letters as a whole; a dead letter that is larger is cut, and
        says so in a header.
        """
        errors = {each.row: each for each in scored.errors}
        sheet = _Sheet(decoded, scored, errors, self._keep, self._names)
        if self.files:
            outgoing = self._letters(decoded, errors)
            dead = len(errors)
            table = sheet.table(list(range(len(decoded.messages))), filled=True) if len(scored.table) else None
        else:
            outgoing, dead = self._messages(decoded, sheet, errors, most_bytes)
            table = None
        if most_bytes:
            outgoing = [letters.fitted(each, most_bytes) if each.dead else each for each in outgoing]
        return Encoded(outgoing=tuple(outgoing), records=decoded.starts[-1], dead_letters=dead, table=table)

    def give_up(self, message: Message) -> Outgoing:
        """The dead letter of a message that is not tried any more."""
        text = f"the message has ended {max(message.delivered - 1, 1)} runners or more, and is not tried again"
        return letters.dead_letter(message, [letters.Reason(0, "MaxDeliver", text)])

    def too_large(self, message: Message, size: int, most_bytes: int) -> Outgoing:
        """The dead letter of a message whose output the sink does not take."""
        text = f"the output has {size} bytes, and the sink takes at most {most_bytes}; let the model give less"
        return letters.fitted(letters.dead_letter(message, [letters.Reason(0, "OutputTooLarge", text)]), most_bytes)

    def _messages(
        self, decoded: Decoded, sheet: "_Sheet", errors: Mapping[int, RowError], most_bytes: int
    ) -> tuple[list[Outgoing], int]:
        """(what goes out, how many records are bad)."""
        if not errors and self.format == "json" and decoded.values and not any(decoded.packed):
            singles = self._singles(decoded.messages, sheet.objects())
            if not most_bytes or all(letters.size(each) <= most_bytes for each in singles):
                return singles, 0
        payload_of = {"json": sheet.json, "arrow": sheet.arrow, "raw": sheet.raw}[self.format]
        content_type = letters.CONTENT_TYPES[self.format]
        found: list[Outgoing] = []
        dead = len(errors)
        for number, message in enumerate(decoded.messages):
            good, bad = _parts(decoded, number, errors) if errors else (sheet.count(number), ())
            if good:
                headers = letters.headers(message, content_type)
                output = Outgoing(position=message.position, payload=payload_of(number), headers=headers)
                size = letters.size(output) if most_bytes else 0
                if size > most_bytes:
                    found.append(self.too_large(message, size, most_bytes))
                    dead += good
                    continue
                found.append(output)
            if bad:
                found.append(_letter(decoded, number, bad))
        return found, dead

    def _singles(self, messages: Sequence[Message], payloads: Sequence[bytes]) -> list[Outgoing]:
        """Of messages with one good record each: what a stream is asked for most."""
        content_type = letters.CONTENT_TYPES["json"]
        return [
            Outgoing(position=each.position, payload=payload, headers=letters.headers(each, content_type))
            for each, payload in zip(messages, payloads, strict=True)
        ]

    def _letters(self, decoded: Decoded, errors: Mapping[int, RowError]) -> list[Outgoing]:
        if not errors:
            return []
        parts = ((number, _parts(decoded, number, errors)[1]) for number in range(len(decoded.messages)))
        return [_letter(decoded, number, bad) for number, bad in parts if bad]


class _Sheet:
    """Scored records by their message. Python's values are made only where they are asked for."""

    def __init__(
        self,
        decoded: Decoded,
        scored: Scored,
        errors: Mapping[int, RowError],
        keep: tuple[str, ...],
        names: Sequence[str],
    ) -> None:
        self._decoded = decoded
        self._keep = keep
        self._names = names
        self._outputs = scored.table.rename_columns(list(names))
        self._good = np.ones(decoded.starts[-1], bool)
        self._good[list(errors)] = False
        self._all_good = not errors
        self._before: list[int] = [0, *np.cumsum(self._good).tolist()]
        """How many scored records come before each."""
        if self._before[-1] != len(scored.table):
            raise AssertionError(f"{len(scored.table)} records are scored, and {self._before[-1]} are not bad")
        self._rows: list[tuple[Any, ...]] | None = None

    def count(self, number: int) -> int:
        """Scored records of a message."""
        start, stop = self._span(number)
        return stop - start

    def objects(self) -> list[bytes]:
        """Every record as an object, where all are good and of JSON."""
        names, keep = self._names, self._keep
        outputs = (dict(zip(names, row, strict=True)) for row in self._output_rows())
        if not keep:
            return [_encode(given) for given in outputs]
        return [
            _encode({name: record[name] for name in keep if name in record} | given)
            for record, given in zip(self._decoded.values, outputs, strict=True)
        ]

    def json(self, number: int) -> bytes:
        """An object, or a list of them."""
        start, stop = self._span(number)
        names = self._names
        outputs = [dict(zip(names, row, strict=True)) for row in self._output_rows()[start:stop]]
        if self._keep:
            outputs = [kept | given for kept, given in zip(self._kept(number), outputs, strict=True)]
        return _encode(outputs if self._decoded.packed[number] else outputs[0])

    def _output_rows(self) -> list[tuple[Any, ...]]:
        if self._rows is None:
            columns = [json_values(each) for each in self._outputs.columns]
            self._rows = list(zip(*columns, strict=True))
        return self._rows

    def arrow(self, number: int) -> bytes:
        """One IPC stream, uncompressed."""
        return _stream(self.table([number]))

    def raw(self, number: int) -> bytes:
        """The only value of the only record."""
        start, _ = self._span(number)
        found: bytes = self._outputs.column(0)[start].as_py()
        return found

    def table(self, numbers: Sequence[int], *, filled: bool = False) -> pa.Table:
        """Kept fields and outputs of some messages that follow each other. filled: with columns that none has."""
        start, stop = self._span(numbers[0])[0], self._span(numbers[-1])[1]
        outputs = self._outputs.slice(start, stop - start)
        if not self._keep:
            return outputs
        if self._decoded.tables:
            kept = self._kept_columns(numbers, filled=filled)
        else:
            rows = [row for number in numbers for row in self._kept(number)]
            kept = {name: tables.column([row.get(name) for row in rows]) for name in self._keep}
        return pa.table({**kept, **dict(zip(self._names, outputs.columns, strict=True))})

    def _span(self, number: int) -> tuple[int, int]:
        """Of the scored records of a message, among all."""
        starts = self._decoded.starts
        return self._before[starts[number]], self._before[starts[number + 1]]

    def _kept(self, number: int) -> list[dict[str, Any]]:
        """Of each scored record what is there to keep."""
        if self._decoded.tables:
            table = self._kept_table(number)
            if not table.num_columns:
                return [{}] * self.count(number)
            columns = [json_values(each) for each in table.columns]
            return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
        starts, keep = self._decoded.starts, self._keep
        records = self._decoded.values[starts[number] : starts[number + 1]]
        if not self._all_good:
            good = self._good[starts[number] : starts[number + 1]].tolist()
            records = [each for each, well in zip(records, good, strict=True) if well]
        return [{name: each[name] for name in keep if name in each} for each in records]

    def _kept_columns(self, numbers: Sequence[int], *, filled: bool) -> dict[str, pa.ChunkedArray]:
        """Of Arrow messages."""
        found = {number: self._kept_table(number) for number in numbers if self.count(number)}
        if not filled:
            table = found[numbers[0]]
            return dict(zip(table.column_names, table.columns, strict=True))
        whole = tables.united([self._filled(number, each) for number, each in found.items()], None)
        return dict(zip(self._keep, whole.columns, strict=True))

    def _filled(self, number: int, table: pa.Table) -> pa.Table:
        there = set(table.column_names)
        nothing = pa.nulls(self.count(number))
        return pa.table({name: table.column(name) if name in there else nothing for name in self._keep})

    def _kept_table(self, number: int) -> pa.Table:
        """Its scored records; what there is to keep of them."""
        table = self._decoded.tables[number]
        assert table is not None
        found = table.select([name for name in self._keep if name in table.column_names])
        if self._all_good or not found.num_columns:
            return found
        starts = self._decoded.starts
        return rows_of(found, np.flatnonzero(self._good[starts[number] : starts[number + 1]]))


def _parts(decoded: Decoded, number: int, errors: Mapping[int, RowError]) -> tuple[int, tuple[RowError, ...]]:
    """(how many records of a message are good, the bad ones)."""
    start, stop = decoded.starts[number], decoded.starts[number + 1]
    bad = tuple(errors[record] for record in range(start, stop) if record in errors)
    return stop - start - len(bad), bad


def _letter(decoded: Decoded, number: int, bad: Sequence[RowError]) -> Outgoing:
    """The whole message where all of it is bad, else only its bad records."""
    message = decoded.messages[number]
    start, stop = decoded.starts[number], decoded.starts[number + 1]
    reasons = [letters.Reason(each.row - start, each.code, each.message) for each in bad]
    if len(bad) == stop - start:
        return letters.dead_letter(message, reasons)
    places = [each.row for each in reasons]
    table = decoded.tables[number] if decoded.tables else None
    if table is not None:
        return letters.dead_letter(message, reasons, _stream(rows_of(table, np.array(places))))
    elements = raw_elements(message.payload, stop - start)
    assert elements is not None, "only the records of a list can be told apart"
    return letters.dead_letter(message, reasons, b"[" + b",".join(elements[place] for place in places) + b"]")


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _unfit_source(work: StreamWork) -> list[str]:
    source, inputs = work.source, work.model.inputs
    if source.format not in MESSAGE_FORMATS:
        return [f"spec.source.format: {source.format} is none of {', '.join(MESSAGE_FORMATS)}"]
    if not inputs:
        return ["the model has no inputs; declare them in the Model"]
    columns = source.columns
    if source.format == "raw":
        found = [] if _is_text(inputs) else [f"spec.source.format: raw needs {_one_text('input', inputs)}"]
        return [*found, *(["spec.source.columns: raw messages have no fields; leave it out"] if columns else [])]
    if not columns:
        return []
    found = ["spec.source.columns: the same field is there twice"] if len(set(columns)) < len(columns) else []
    if len(inputs) > 1:
        found.append(
            f"spec.source.columns: the model has {len(inputs)} inputs, whose fields are found by name; leave it out"
        )
    elif len(columns) > 1 and len(inputs[0].shape) != 2:
        found.append(f"spec.source.columns: input {inputs[0].name} of the model is no matrix; name one field")
    elif len(columns) > 1 and inputs[0].shape[1] not in (-1, len(columns)):
        found.append(
            f"spec.source.columns: there are {len(columns)}, and input {inputs[0].name} of the model takes "
            f"{inputs[0].shape[1]}"
        )
    return found


def _unfit_sink(work: StreamWork, format_name: str, *, files: bool) -> list[str]:
    sink, raw = work.sink, work.source.format == "raw"
    allowed = FILE_FORMATS if files else MESSAGE_FORMATS
    if format_name not in allowed:
        return [f"spec.sink.format: {format_name} is none of {', '.join(allowed)}"]
    rules: list[tuple[Callable[[], bool], str]] = [
        (lambda: len(set(sink.keep)) < len(sink.keep), "spec.sink.keep: the same field is there twice"),
        (lambda: raw and bool(sink.keep), "spec.sink.keep: raw messages have no fields; leave it out"),
        (
            lambda: format_name == "raw" and not raw,
            "spec.sink.format: raw has no room for several records; it needs spec.source.format: raw",
        ),
        (
            lambda: format_name == "raw" and not _is_text(work.model.outputs),
            f"spec.sink.format: raw needs {_one_text('output', work.model.outputs)}; use json",
        ),
        (lambda: not work.model.outputs, "the model has no outputs; declare them in the Model"),
    ]
    return [message for broken, message in rules if broken()]


def _is_text(specs: Sequence[TensorSpec]) -> bool:
    return len(specs) == 1 and specs[0].datatype == "BYTES" and specs[0].shape in _FLAT


def _one_text(what: str, specs: Sequence[TensorSpec]) -> str:
    there = ", ".join(f"{each.name} {each.datatype} {list(each.shape)}" for each in specs) or "none"
    return f"a model with one {what}, BYTES of shape [-1] or [-1, 1]; it has {there}"
