"""Arrow IPC files (also called Feather V2): record batches are segments. Source: the Arrow columnar format, IPC."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from modelyard.runtime.jobs.formats.tables import fitted, named, readable
from modelyard.runtime.scoring.records import Batch, File, Segment, Wanted, numbered

SUFFIXES = (".arrow", ".feather")


def schema(file: File, name: str) -> pa.Schema:
    """As the file says."""
    with readable(name, ""):
        return named(_open(file).schema)


def survey(file: File, name: str, segment_bytes: int) -> tuple[Segment, ...]:  # noqa: ARG001  batches are as they are
    """Reads the head of every batch: how many rows it has is told nowhere else."""
    with readable(name, ""):
        reader = _open(file)
        found, first = [], 0
        for number in range(reader.num_record_batches):
            rows = reader.get_batch(number).num_rows
            found.append(Segment(start=number, stop=number + 1, rows=rows, first_row=first))
            first += rows
    return tuple(found)


def read(file: File, name: str, wanted: Wanted) -> Iterator[Batch]:
    """One batch of the file at a time, cut to the rows that are asked for."""
    first = wanted.first_row
    with readable(name, ""):
        reader = _open(file)
    for number in range(wanted.start, wanted.stop):
        with readable(name, f", record batch {number}"):
            batch = reader.get_batch(number)
            batch.validate(full=True)
        table = fitted(pa.Table.from_batches([batch]), wanted.schema, wanted.columns, name)
        for start in range(0, batch.num_rows, wanted.batch_rows):
            part = table.slice(start, wanted.batch_rows)
            yield numbered(part, first + start)
        first += batch.num_rows


def _open(file: Any) -> Any:
    return pa.ipc.open_file(pa.PythonFile(file, "r"))
