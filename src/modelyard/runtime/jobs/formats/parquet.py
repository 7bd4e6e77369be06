"""Parquet: row groups are segments. Source: the Apache Parquet file format."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs.formats.tables import fitted, named, readable
from modelyard.runtime.scoring.records import Batch, File, Segment, Wanted, numbered
from modelyard.runtime.scoring.refused import Refused

SUFFIXES = (".parquet", ".pq")
_AT_ONCE_BYTES = 32 * 2**20
_LEAST_PIECE_BYTES, _MOST_PIECE_BYTES = 256 * 2**10, 2 * 2**20


def schema(file: File, name: str) -> pa.Schema:
    """As the footer says."""
    with readable(name, ""):
        return named(pq.ParquetFile(pa.PythonFile(file, "r")).schema_arrow)


def survey(file: File, name: str, segment_bytes: int) -> tuple[Segment, ...]:  # noqa: ARG001  groups are as they are
    """From the footer alone."""
    with readable(name, ""):
        metadata = pq.ParquetFile(pa.PythonFile(file, "r")).metadata
        found, first = [], 0
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            found.append(Segment(start=number, stop=number + 1, rows=rows, first_row=first))
            first += rows
    return tuple(found)


def read(file: File, name: str, wanted: Wanted) -> Iterator[Batch]:
    """Memory is bounded however large a row group is."""
    first = wanted.first_row
    groups = list(range(wanted.start, wanted.stop))
    what = f", row group {wanted.start}"
    with readable(name, what):
        source = _opened(file, wanted)
        there = set(source.schema_arrow.names)
        end = first + sum(source.metadata.row_group(number).num_rows for number in groups)
        batches = source.iter_batches(
            batch_size=wanted.batch_rows,
            row_groups=groups,
            columns=[each for each in wanted.columns if each in there],
            use_threads=False,
        )
    while True:
        with readable(name, what):
            batch = next(batches, None)
        if batch is None:
            if first != end:  # pyarrow stops where a column ends early, and says nothing
                raise Refused(Reason.INPUT_INVALID, f"{name}{what} lacks {end - first} rows; write the file again")
            return
        yield numbered(fitted(pa.Table.from_batches([batch]), wanted.schema, wanted.columns, name), first)
        first += batch.num_rows


def _opened(file: File, wanted: Wanted) -> pq.ParquetFile:
    """Small row groups are read at once, in few requests; of large ones a piece of each column at a time."""
    source = pq.ParquetFile(pa.PythonFile(file, "r"))
    groups = (source.metadata.row_group(number) for number in range(wanted.start, wanted.stop))
    # The footer tells sizes only before compression.
    if sum(group.total_byte_size for group in groups) <= _AT_ONCE_BYTES:
        return pq.ParquetFile(pa.PythonFile(file, "r"), metadata=source.metadata, pre_buffer=True)
    piece = min(max(_AT_ONCE_BYTES // max(len(wanted.columns), 1), _LEAST_PIECE_BYTES), _MOST_PIECE_BYTES)
    return pq.ParquetFile(pa.PythonFile(file, "r"), metadata=source.metadata, pre_buffer=False, buffer_size=piece)
