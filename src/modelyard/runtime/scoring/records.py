"""Records on their way from a file to the model, with their numbers in the file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class File(Protocol):
    """What formats read, in threads: `storage.file.StoredFile`."""

    def read(self, size: int = ..., /) -> bytes: ...

    def seek(self, offset: int, whence: int = ..., /) -> int: ...

    def size(self) -> int: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A natural piece of one file, to be read at once or in parts.

    start, stop: a parquet row group, an arrow record batch (numbers), a range of bytes that begins and ends between
    records of csv or jsonl, 0 and 1 for an image. rows: exact; first_row: the number of its first row, from 0.
    """

    start: int
    stop: int
    rows: int
    first_row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to read of a file. start, stop, first_row: of a segment; schema: of the whole input, frozen."""

    start: int
    stop: int
    first_row: int
    schema: pa.Schema
    columns: Sequence[str]
    batch_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RowError:
    """A row that cannot be scored. row: its number in the file, from 0. key: its kept columns, as JSON values."""

    row: int
    code: str
    message: str
    key: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Some records. rows: the number of each row of the table; errors: records that could not be read at all."""

    table: pa.Table
    rows: Rows
    errors: tuple[RowError, ...] = ()

    @property
    def last_row(self) -> int:
        """The highest number in it, -1 without any."""
        highest = int(self.rows[-1]) if len(self.rows) else -1
        return max([highest, *(each.row for each in self.errors)])


def numbered(table: pa.Table, first_row: int) -> Batch:
    """Rows that follow each other."""
    return Batch(table=table, rows=np.arange(first_row, first_row + table.num_rows, dtype=np.int64))
