"""Formats of records. Each module has the same four functions: names, schema, survey, read.

Files are synchronous and seekable (`storage.file`); everything here runs in threads.
"""

from collections.abc import Iterator
from types import ModuleType

import pyarrow as pa

from modelyard.runtime.jobs.formats import arrow, csv, images, jsonl, parquet
from modelyard.runtime.scoring.records import Batch, File, Segment, Wanted

_MODULES: dict[str, ModuleType] = {"parquet": parquet, "csv": csv, "jsonl": jsonl, "arrow": arrow, "images": images}
FORMATS = tuple(_MODULES)


def of_name(key: str) -> str | None:
    """The format that a name tells."""
    lower = key.lower()
    return next((name for name, module in _MODULES.items() if lower.endswith(module.SUFFIXES)), None)


def schema(format_name: str, file: File, name: str) -> pa.Schema:
    """The columns of one file: as it says, or as its first MiB lets one think. Raises Refused."""
    found: pa.Schema = _MODULES[format_name].schema(file, name)
    return found


def survey(format_name: str, file: File, name: str, segment_bytes: int) -> tuple[Segment, ...]:
    """All segments of a file. Raises Refused."""
    found: tuple[Segment, ...] = _MODULES[format_name].survey(file, name, segment_bytes)
    return found


def read(format_name: str, file: File, name: str, wanted: Wanted) -> Iterator[Batch]:
    """The records of a segment, at most `batch_rows` at a time. Raises Refused."""
    found: Iterator[Batch] = _MODULES[format_name].read(file, name, wanted)
    return found
