"""CSV with a header. Source: RFC 4180; UTF-8, with or without a byte order mark."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs.formats import lines
from modelyard.runtime.jobs.formats.jsonl import plain
from modelyard.runtime.jobs.formats.tables import readable
from modelyard.runtime.scoring.records import Batch, File, RowError, Segment, Wanted
from modelyard.runtime.scoring.refused import Refused

SUFFIXES = (".csv",)
_SHOWN = 60


def schema(file: File, name: str) -> pa.Schema:
    """As the first MiB lets one think; rows of another length are not counted."""
    data = lines.head(file, quotes=True)
    names, start = _header(data, name)
    rest = data[start:]
    _text(rest, name, 0)
    if not rest.strip():
        return pa.schema([(each, pa.string()) for each in names])
    with readable(name, ""):
        found = pacsv.read_csv(
            io.BytesIO(rest),
            read_options=_one_block(rest, names),
            parse_options=_parsing(lambda _row: "skip"),
            convert_options=pacsv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
        ).schema
    return plain(found)


def survey(file: File, name: str, segment_bytes: int) -> tuple[Segment, ...]:
    """One pass over the file."""
    _, start = _opened(file, name)
    return lines.survey(file, name, segment_bytes, quotes=True, start=start)


def read(file: File, name: str, wanted: Wanted) -> Iterator[Batch]:
    """A segment at once. A row with too few or too many fields, or a value of another type, is an error of that row."""
    names, _ = _opened(file, name)
    data = lines.text(file, wanted.start, wanted.stop)
    missing = [each for each in wanted.columns if each not in names]
    if missing:
        raise Refused(
            Reason.SCHEMA_MISMATCH,
            f"{name}: there is no column {', '.join(missing)}; all files must have the same columns",
        )
    table, rows, errors = _parsed(data, name, names, wanted)
    for start in range(0, max(len(rows), 1), wanted.batch_rows):
        part = rows[start : start + wanted.batch_rows]
        last = start + wanted.batch_rows >= len(rows)
        until = wanted.first_row + 2**62 if last else int(part[-1]) + 1
        told = tuple(each for each in errors if each.row < until)
        errors = errors[len(told) :]
        yield _typed(table.slice(start, wanted.batch_rows), part, told, wanted.schema)


def _parsed(
    data: bytes, name: str, names: Sequence[str], wanted: Wanted
) -> tuple[pa.Table, np.ndarray[Any, Any], list[RowError]]:
    """Every field as text, the numbers of the rows, and rows of another length."""
    _text(data, name, wanted.first_row)
    refused: list[Any] = []

    def refuse(row: Any) -> str:
        refused.append(row)
        return "skip"

    with readable(name, f", from row {wanted.first_row}"):
        table = pacsv.read_csv(
            io.BytesIO(data),
            read_options=_one_block(data, names),
            parse_options=_parsing(refuse),
            convert_options=pacsv.ConvertOptions(
                column_types={each: pa.string() for each in names},
                include_columns=list(wanted.columns),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )
    bad = np.array([row.number - 1 for row in refused], np.int64)
    count = _count(data)
    if table.num_columns and table.num_rows + len(bad) != count:
        raise Refused(
            Reason.INPUT_INVALID,
            f"{name}, from row {wanted.first_row}: quotes or line breaks are not as in CSV (a lone carriage return, a "
            "quote within a value); write the file again",
        )
    every = np.arange(count, dtype=np.int64)
    rows = np.delete(every, bad) + wanted.first_row
    errors = [
        RowError(
            row=int(number) + wanted.first_row,
            code="Unreadable",
            message=f"{row.actual_columns} fields, the header has {row.expected_columns}: {row.text[:_SHOWN]!r}",
        )
        for number, row in zip(bad, refused, strict=True)
    ]
    return table, rows, errors


def _count(data: bytes) -> int:
    stops, _ = lines.ends(data, quotes=True)
    if not len(stops):
        return 0
    starts = np.concatenate(([0], stops[:-1] + 1))
    return int(len(stops) - lines.blank(data, starts, stops).sum())


def _typed(table: pa.Table, rows: np.ndarray[Any, Any], errors: tuple[RowError, ...], schema: pa.Schema) -> Batch:
    """Text becomes what the frozen schema says; what cannot is an error of its row."""
    arrays: dict[str, Any] = {}
    bad: dict[int, str] = {}
    for column in table.column_names:
        kind = schema.field(column).type
        arrays[column], wrong = _converted(table.column(column), kind)
        for index in wrong:
            value = table.column(column)[index].as_py()
            bad.setdefault(index, f"{column}: {value[:_SHOWN]!r} is no {kind}")
    if bad:
        good = np.setdiff1d(np.arange(len(rows)), list(bad))
        found = pa.table(arrays).take(pa.array(good))
        more = tuple(
            RowError(row=int(rows[index]), code="BadValue", message=message) for index, message in sorted(bad.items())
        )
        return Batch(table=found, rows=rows[good], errors=(*errors, *more))
    return Batch(table=pa.table(arrays) if arrays else table, rows=rows, errors=errors)


def _converted(texts: pa.ChunkedArray, kind: pa.DataType) -> tuple[Any, list[int]]:
    """(the values, the places of those that are none of that type, null there)."""
    if pa.types.is_string(kind):
        return texts, []
    trimmed = pc.utf8_trim_whitespace(texts)
    try:
        return pc.cast(trimmed, kind), []
    except pa.ArrowException:
        found, wrong = [], []
        for index, text in enumerate(trimmed.to_pylist()):
            try:
                found.append(pc.cast(pa.scalar(text, pa.string()), kind))
            except pa.ArrowException:
                found.append(pa.scalar(None, kind))
                wrong.append(index)
        return pa.array([each.as_py() for each in found], kind), wrong


def _opened(file: File, name: str) -> tuple[list[str], int]:
    """(the columns, where the first record begins)."""
    file.seek(0)
    data = file.read(2**20)
    names, start = _header(data.removeprefix(lines.BOM), name)
    return names, min(start + (len(lines.BOM) if data.startswith(lines.BOM) else 0), file.size())


def _header(data: bytes, name: str) -> tuple[list[str], int]:
    stops, _ = lines.ends(data + b"\n", quotes=True)
    end = int(stops[0]) if len(stops) else len(data)
    try:
        names = next(csv.reader([data[:end].decode().rstrip("\r")], strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise Refused(Reason.INPUT_INVALID, f"{name}: the first line is no header of a CSV file: {error}") from error
    if not names or len(set(names)) != len(names) or not all(names):
        raise Refused(
            Reason.INPUT_INVALID, f"{name}: the first line must name every column, each once; found {names[:10]}"
        )
    return names, end + 1


def _text(data: bytes, name: str, first: int) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        row = first + data[: error.start].count(b"\n")
        raise Refused(
            Reason.INPUT_INVALID, f"{name} is not text in UTF-8, near row {row}; convert it (iconv -t UTF-8)"
        ) from error


def _parsing(refuse: Any) -> pacsv.ParseOptions:
    return pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse)


def _one_block(data: bytes, names: Sequence[str]) -> pacsv.ReadOptions:
    return pacsv.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 1024), column_names=list(names))
