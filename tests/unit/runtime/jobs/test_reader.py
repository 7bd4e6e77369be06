"""Pieces in any order have their rows; those in order are read from one opening of the file."""

import asyncio
import io
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from modelyard.runtime.jobs import formats
from modelyard.runtime.jobs.reader import Reader
from modelyard.runtime.jobs.shards import Piece, RunRecord, Source
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.storage.stores import Store
from modelyard.wire.work import TensorSpec

ROWS = 1000
X = TensorSpec(name="x", datatype="INT64", shape=(-1,))


def reader(batch_rows: int) -> Reader:
    raw = MemoryStore()
    sink = io.BytesIO()
    table = pa.table({"x": np.arange(ROWS)})
    pq.write_table(table, sink, row_group_size=ROWS // 2)
    obstore.put(raw, "a.parquet", sink.getvalue())
    store = Store(raw, "", "memory:")
    (entry,) = asyncio.run(store.list())
    source = Source(key=entry.key, size_bytes=entry.size_bytes, etag=entry.etag)
    record = RunRecord(job="", identity="", number=1, mode="create", input_format="parquet", sources=(source,))
    return Reader(store, record, Mapping.resolve(table.schema, (X,), (), ()), batch_rows)


def piece(low: int, high: int) -> Piece:
    group = low // (ROWS // 2)
    first = group * (ROWS // 2)
    return Piece(source=0, start=group, stop=group + 1, first_row=first, low=low, high=min(high, first + ROWS // 2))


def numbers(found: Any) -> list[int]:
    return [row for batch in found for row in batch.rows.tolist()]


@given(
    lows=st.lists(st.integers(0, ROWS - 1), max_size=8),
    width=st.integers(1, 300),
    batch_rows=st.integers(1, 400),
    broken=st.sets(st.integers(0, 7)),
)
def test_every_piece_has_its_rows_whatever_was_read_before(
    lows: list[int], width: int, batch_rows: int, broken: set[int]
) -> None:
    it = reader(batch_rows)
    for turn, low in enumerate(lows):
        each = piece(low, low + width)
        if turn in broken:
            next(it.rows(each), None)  # given up, as when a shard is dropped
        else:
            assert numbers(it.rows(each)) == list(range(each.low, each.high))


def test_pieces_in_order_are_read_from_one_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    it = reader(70)
    opened: list[int] = []
    real = formats.read

    def counted(*args: Any) -> Any:
        opened.append(1)
        return real(*args)

    monkeypatch.setattr(formats, "read", counted)
    for low in range(0, ROWS // 2, 100):
        assert numbers(it.rows(piece(low, low + 100))) == list(range(low, low + 100))
    assert len(opened) == 1
    assert numbers(it.rows(piece(0, 10))) == list(range(10))
    assert len(opened) == 2
