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

from modelyard.runtime.jobs.records import RowError


class Part:
    """Rows of one schema in one format. metadata: kept by parquet and arrow."""

    def __init__(self, format_name: str, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        self.rows = 0
        self._format = format_name
        self._schema = schema
        self._sink = io.BytesIO() if format_name == "jsonl" else pa.BufferOutputStream()
        self._writer: Any = None
        described = schema.with_metadata(dict(metadata))
        if format_name == "parquet":
            self._writer = pq.ParquetWriter(self._sink, described, compression="zstd", compression_level=1)
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
            self._writer.write_table(table.replace_schema_metadata(None).cast(self._schema))

    def finish(self) -> bytes:
        """The whole file."""
        if self._format == "jsonl":
            return bytes(self._sink.getvalue())
        self._writer.close()
        return bytes(self._sink.getvalue())


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
