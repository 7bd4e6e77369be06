"""A part of the output while it is written, in memory: it becomes one object, put at once."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from modelyard.runtime.scoring.records import RowError

_GROUP_ROWS = 128 * 1024
_GROUP_BYTES = 32 * 2**20


class Part:
    """Rows of one schema in one format. metadata: kept by parquet and arrow."""

    def __init__(self, format_name: str, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        self.rows = 0
        self._format = format_name
        self._schema = schema
        self._sink = io.BytesIO() if format_name == "jsonl" else pa.BufferOutputStream()
        self._writer: Any = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        described = schema.with_metadata(dict(metadata))
        if format_name == "parquet":
            self._writer = _parquet(self._sink, described)
        elif format_name == "arrow":
            self._writer = pa.ipc.new_file(self._sink, described)
        elif format_name == "csv":
            self._writer = pacsv.CSVWriter(self._sink, _flat_schema(schema))

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self.rows += table.num_rows
        if not table.num_rows:
            return
        if self._format == "jsonl":
            lines = (json.dumps(row, default=_jsonable, ensure_ascii=False) for row in table.to_pylist())
            self._sink.write("".join(f"{line}\n" for line in lines).encode())
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
        self._flush()
        self._writer.close()
        return bytes(self._sink.getvalue())

    def _flush(self) -> None:
        """One row group, or record batch, of what was written in small pieces."""
        if self._waiting:
            table = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(table, self._waiting_rows)
            self._waiting, self._waiting_rows = [], 0


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
    """CSV has no lists: they are written as JSON."""
    return pa.schema([(field.name, pa.string() if pa.types.is_nested(field.type) else field.type) for field in schema])


def _flat(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            texts = [json.dumps(each, default=_jsonable) for each in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table
