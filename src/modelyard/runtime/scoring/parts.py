"""A part of the output while it is written, in memory: it becomes one object, put at once."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.records import RowError
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.values import json_values

_GROUP_ROWS = 128 * 1024
_GROUP_BYTES = 32 * 2**20


class Part:
    """Rows of one schema in one format. metadata: kept by parquet and arrow. Raises Refused for types that the format
    does not have."""

    def __init__(self, format_name: str, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        self.rows = 0
        self._format = format_name
        self._schema = schema
        self._sink = io.BytesIO() if format_name == "jsonl" else pa.BufferOutputStream()
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        described = schema.with_metadata(dict(metadata))
        with self._writable():
            if format_name == "parquet":
                self._writer = _parquet(self._sink, described)
            elif format_name == "arrow":
                self._writer = pa.ipc.new_file(self._sink, described)
            elif format_name == "csv":
                self._writer = pacsv.CSVWriter(self._sink, _flat_schema(schema))

    def write(self, table: pa.Table) -> None:
        """Add rows. Raises Refused, too, for values that the format does not have."""
        self.rows += table.num_rows
        if not table.num_rows:
            return
        with self._writable():
            if self._format == "jsonl":
                self._sink.write(_lines(table))
            elif self._format == "csv":
                self._writer.write_table(_flat(table))
            else:
                self._waiting.append(table)
                self._waiting_rows += table.num_rows
                if self._waiting_rows >= _GROUP_ROWS or sum(each.nbytes for each in self._waiting) >= _GROUP_BYTES:
                    self._flush()

    @property
    def size_bytes(self) -> int:
        """Encoded so far."""
        return int(self._sink.tell())

    def finish(self) -> bytes:
        """The whole file."""
        if self._format == "jsonl":
            return bytes(self._sink.getvalue())
        with self._writable():
            self._flush()
            self._writer.close()
        return bytes(self._sink.getvalue())

    def _flush(self) -> None:
        """One row group, or record batch, of what was written in small pieces."""
        if self._waiting:
            table = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(table, self._waiting_rows)
            self._waiting, self._waiting_rows = [], 0

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """What Arrow's writers raise is about kept columns: outputs have types that all formats have."""
        try:
            yield
        except (pa.ArrowException, ValueError, OverflowError, RecursionError) as error:
            types = ", ".join(f"{each.name} {each.type}" for each in self._schema)
            said = " ".join(str(error).split("\n", 1)[0].split())[:300]
            raise Refused(
                Reason.SCHEMA_MISMATCH,
                f"the columns ({types[:500]}) cannot be written as {self._format}: {said}; keep other columns, or "
                "write another format",
            ) from error


def _lines(table: pa.Table) -> bytes:
    """JSON lines; what JSON has no number for is null."""
    names = table.column_names
    rows = zip(*(json_values(each) for each in table.columns), strict=True)
    found = (json.dumps(dict(zip(names, row, strict=True)), default=_jsonable, ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in found).encode()


def _parquet(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Dictionaries are made for texts alone: of numbers they cost three times the time and save nothing after zstd."""
    texts = [each.name for each in schema if pa.types.is_string(each.type) or pa.types.is_binary(each.type)]
    return pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1, use_dictionary=texts or False)


def errors_body(errors: Sequence[RowError], file: str) -> bytes:
    """Dead letters: a line of JSON for each row."""
    found = io.StringIO()
    for each in errors:
        line = {"file": file, "row": each.row, "key": each.key, "code": each.code, "message": each.message}
        found.write(json.dumps(line, default=_jsonable, ensure_ascii=False) + "\n")
    return found.getvalue().encode("utf-8", "replace")


def _jsonable(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else repr(value)


def _flat_schema(schema: pa.Schema) -> pa.Schema:
    """CSV has no lists, which are written as JSON, and no bytes, which are written as text."""
    return pa.schema([(field.name, pa.string() if _is_odd(field.type) else field.type) for field in schema])


def _is_odd(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _flat(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if _is_odd(field.type):
            values = json_values(table.column(index))
            if pa.types.is_nested(field.type):
                values = [json.dumps(each, default=_jsonable) for each in values]
            table = table.set_column(index, field.name, pa.array(values, pa.string()))
    return table
