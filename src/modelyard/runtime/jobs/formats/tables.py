"""What the formats of typed tables share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.values import check_texts


@contextmanager
def readable(name: str, what: str) -> Iterator[None]:
    """Errors of Arrow inside the block mean that the file is damaged, or no such file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise Refused(
            Reason.INPUT_INVALID, f"{name}{what} cannot be read: {sentence(error)}; write the file again"
        ) from error


def named(schema: pa.Schema) -> pa.Schema:
    """The schema, without what only its writer knows. Raises ValueError where a name is no text."""
    check_texts(schema)
    return schema.remove_metadata()


def sentence(error: Exception) -> str:
    """The first line of an error, for people."""
    return " ".join(str(error).split("\n", 1)[0].split())[:300] or type(error).__name__


def fitted(table: pa.Table, schema: pa.Schema, columns: Sequence[str], name: str) -> pa.Table:
    """The columns in the types of the whole input. Raises Refused (SchemaMismatch) with all that differ."""
    wrong = []
    arrays: list[Any] = []
    for column in columns:
        wanted = schema.field(column).type
        count = table.column_names.count(column)
        found = table.column(column) if count == 1 else None
        if found is None:
            wrong.append(f"there {'are several columns' if count else 'is no column'} {column}")
        elif found.type != wanted:
            try:
                found = found.cast(wanted)
            except pa.ArrowException:
                wrong.append(f"column {column} is {found.type}, and {wanted} in the first file")
        arrays.append(found)
    if wrong:
        raise Refused(Reason.SCHEMA_MISMATCH, f"{name}: {'; '.join(wrong)}; all files must have the same columns")
    if not columns:
        return table.select([])
    return pa.table(dict(zip(columns, arrays, strict=True)))
