"""Begin a run: find out what there is to score, how wide a scored row is, and cut the work into shards."""

import asyncio
import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from modelyard.runtime.jobs import formats, inputs, shards
from modelyard.runtime.jobs.shards import RunRecord, Segment, Source
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.parts import Part
from modelyard.runtime.scoring.records import Wanted
from modelyard.storage.file import StoredFile
from modelyard.storage.stores import Entry, Store
from modelyard.wire.work import ScoreWork, TensorSpec

_SAMPLE_ROWS = 1024
_TEXT_BYTES = 32
_OPEN_SIZE = 16
"""What is assumed of texts, and of sizes that a signature leaves open."""
_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is asked: the work, where its input is, and which files that means."""

    work: ScoreWork
    store: Store
    format: str
    sources: tuple[Source, ...]
    identity: str


async def plan(task: Task, number: int) -> RunRecord:
    """The record of a run that has not begun yet. Raises Refused and what stores raise."""
    work, first = task.work, task.sources[0]
    schema = await asyncio.to_thread(formats.schema, task.format, open_source(task.store, first), first.key)
    mapping = Mapping.resolve(schema, work.model.inputs, work.input.columns, work.output.keep)
    output_format = inputs.output_format(work, task.format)
    Part(output_format, mapping.output_schema(work.model.outputs), {})  # refuses types that it does not have
    segments = await asyncio.to_thread(_survey, task)
    width = await asyncio.to_thread(_width, task, schema, mapping, segments)
    return RunRecord(
        job=work.job,
        identity=task.identity,
        number=number,
        mode=work.output.mode,
        format=output_format,
        input_format=task.format,
        schema=base64.b64encode(schema.serialize().to_pybytes()).decode(),
        sources=task.sources,
        shards=shards.cut(segments, bytes_per_row=width, shard_bytes=work.shard_bytes, min_shards=work.min_shards),
    )


def schema_of(record: RunRecord) -> pa.Schema:
    """The frozen schema of the input."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record.schema)))


def open_source(store: Store, source: Source) -> StoredFile:
    """The file as it was when the run began; reading another one raises InputChanged."""
    return store.open_file(Entry(key=source.key, size_bytes=source.size_bytes, etag=source.etag, modified=0.0))


def _survey(task: Task) -> list[Segment]:
    """In a thread: reads footers, and all of csv and jsonl, where only the content tells how many rows there are."""
    found = []
    for index, source in enumerate(task.sources):
        with open_source(task.store, source) as file:
            found += [
                Segment(source=index, start=each.start, stop=each.stop, first_row=each.first_row, rows=each.rows)
                for each in formats.survey(task.format, file, source.key, task.work.shard_bytes // 4)
            ]
    return found


def _width(task: Task, schema: pa.Schema, mapping: Mapping, segments: Sequence[Segment]) -> float:
    """Bytes of one scored row: of what is kept measured on the first ones, of the outputs by their signature.

    The model is not asked: a row that ends it must not do so before there is a run that counts attempts.
    """
    first = next((each for each in segments if each.rows), None)
    outputs = sum(_output_bytes(spec) for spec in task.work.model.outputs)
    kept = task.work.output.keep
    if first is None or not kept:
        return max(outputs, 1.0)
    source = task.sources[first.source]
    with open_source(task.store, source) as file:
        wanted = Wanted(
            start=first.start,
            stop=first.stop,
            first_row=first.first_row,
            schema=schema,
            columns=mapping.read_columns,
            batch_rows=_SAMPLE_ROWS,
        )
        found = formats.read(task.format, file, source.key, wanted)
        batch = next(iter(found), None)
    if batch is None or not batch.table.num_rows:
        return outputs + _TEXT_BYTES * len(kept)
    return outputs + float(batch.table.select(list(kept)).nbytes) / float(batch.table.num_rows)


def _output_bytes(spec: TensorSpec) -> float:
    size = _TEXT_BYTES if spec.datatype == "BYTES" else _SIZES.get(spec.datatype.lstrip("BUINTFPO"), 1)
    return float(size * math.prod(_OPEN_SIZE if each < 0 else each for each in spec.shape[1:]))
