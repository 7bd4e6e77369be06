"""Images: every file is a row with the columns `path` (its name) and `image` (its bytes)."""

from collections.abc import Iterator

import pyarrow as pa

from modelyard.runtime.scoring.records import Batch, File, Segment, Wanted, numbered

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_SCHEMA = pa.schema([("path", pa.string()), ("image", pa.binary())])


def schema(file: File, name: str) -> pa.Schema:  # noqa: ARG001  all are alike
    """The same for all."""
    return _SCHEMA


def survey(file: File, name: str, segment_bytes: int) -> tuple[Segment, ...]:  # noqa: ARG001  all are alike
    """One row."""
    return (Segment(start=0, stop=1, rows=1, first_row=0),)


def read(file: File, name: str, wanted: Wanted) -> Iterator[Batch]:
    """The file as it is."""
    table = pa.table({"path": [name], "image": [file.read()]}, schema=_SCHEMA)
    yield numbered(table.select(list(wanted.columns)), 0)
