"""JSON lines: one object on each line. Source: jsonlines.org; RFC 8259."""

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.json as paj

from modelyard.runtime.jobs.formats import lines
from modelyard.runtime.jobs.formats.tables import readable, sentence
from modelyard.runtime.scoring.records import Batch, File, RowError, Segment, Wanted

SUFFIXES = (".jsonl", ".ndjson")
_LOOKED_AT = 2000
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def schema(file: File, name: str) -> pa.Schema:
    """As the first MiB lets one think: lines that are no objects are not counted."""
    objects = [each for each in lines.head(file, quotes=False).split(b"\n") if _is_object(each)]
    if not objects:
        return pa.schema([])
    data = b"\n".join(objects) + b"\n"
    try:
        return plain(paj.read_json(io.BytesIO(data), read_options=_one_block(data)).schema)
    except pa.ArrowException:
        with readable(name, ""):
            return plain(pa.Table.from_pylist([json.loads(each) for each in objects[:_LOOKED_AT]]).schema)


def plain(found: pa.Schema) -> pa.Schema:
    """What text alone cannot tell for certain stays text: times, and columns without any value."""

    def kept(kind: pa.DataType) -> pa.DataType:
        unsure = pa.types.is_temporal(kind) or pa.types.is_null(kind)
        return pa.string() if unsure else kind

    return pa.schema([(field.name, kept(field.type)) for field in found])


def survey(file: File, name: str, segment_bytes: int) -> tuple[Segment, ...]:
    """One pass over the file."""
    file.seek(0)
    start = len(lines.BOM) if file.read(len(lines.BOM)) == lines.BOM else 0
    return lines.survey(file, name, segment_bytes, quotes=False, start=start)


def read(file: File, name: str, wanted: Wanted) -> Iterator[Batch]:  # noqa: ARG001  lines are told by their numbers
    """A segment at once; line by line only where one of them is wrong."""
    data = lines.text(file, wanted.start, wanted.stop)
    asked = pa.schema([wanted.schema.field(column) for column in wanted.columns])
    records = [each for each in data.split(b"\n") if each.strip(b"\r")]
    for start in range(0, len(records), wanted.batch_rows):
        part = records[start : start + wanted.batch_rows]
        yield _batch(part, asked, wanted.first_row + start)


def _batch(part: Sequence[bytes], asked: pa.Schema, first: int) -> Batch:
    rows = np.arange(first, first + len(part), dtype=np.int64)
    joined = b"\n".join(part) + b"\n"
    try:
        if not all(map(_is_object, part)):
            return _one_by_one(part, asked, first)
        options = paj.ParseOptions(explicit_schema=asked, unexpected_field_behavior="ignore")
        table = paj.read_json(io.BytesIO(joined), read_options=_one_block(joined), parse_options=options)
        if table.num_rows == len(part):
            return Batch(table=table.select(asked.names), rows=rows)
    except (pa.ArrowException, KeyError):
        pass
    return _one_by_one(part, asked, first)


def _one_by_one(part: Sequence[bytes], asked: pa.Schema, first: int) -> Batch:
    good: list[dict[str, Any]] = []
    numbers: list[int] = []
    errors: list[RowError] = []
    for offset, line in enumerate(part):
        found = _object(line)
        problem = found if isinstance(found, str) else _unfit(found, asked)
        if problem:
            errors.append(RowError(row=first + offset, code="Unreadable", message=problem))
        else:
            assert isinstance(found, dict)
            good.append({name: found.get(name) for name in asked.names})
            numbers.append(first + offset)
    table = pa.Table.from_pylist(good, schema=asked)
    return Batch(table=table, rows=np.array(numbers, np.int64), errors=tuple(errors))


def _is_object(line: bytes) -> bool:
    """Exactly one object and nothing else.

    Asked before Arrow is: its reader (26.0) ends the process at a `null` outside of an object, counts several values on
    one line, and takes any bytes for text.
    """
    try:
        _OBJECT.decode(line)
        if not line.isascii():
            line.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _object(line: bytes) -> dict[str, Any] | str:
    """The object on a line, or what is wrong with it."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"the line is no JSON: {sentence(error)}"
    return found if isinstance(found, dict) else "the line is no JSON object"


def _unfit(found: dict[str, Any], asked: pa.Schema) -> str:
    for field in asked:
        try:
            pa.array([found.get(field.name)], field.type)
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            return f"{field.name}: {sentence(error)}"
    return ""


def _one_block(data: bytes) -> paj.ReadOptions:
    return paj.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 1024))
