"""Every row is in exactly one piece of exactly one shard, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.runtime.jobs import shards
from modelyard.runtime.jobs.shards import Piece, RunRecord, Segment, Source


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    found = []
    for source in range(draw(st.integers(0, 4))):
        first = 0
        for start in range(draw(st.integers(1, 4))):
            rows = draw(st.integers(0, 5000))
            found.append(Segment(source=source, start=start, stop=start + 1, first_row=first, rows=rows))
            first += rows
    return found


@given(segments(), st.floats(1, 10_000), st.integers(1 << 16, 1 << 26), st.integers(1, 50))
def test_every_row_is_in_one_piece(given: list[Segment], width: float, size: int, least: int) -> None:
    found = shards.cut(given, bytes_per_row=width, shard_bytes=size, min_shards=least)
    rows = [(piece.source, row) for shard in found for piece in shard for row in range(piece.low, piece.high)]
    wanted = [(each.source, row) for each in given for row in range(each.first_row, each.first_row + each.rows)]
    assert rows == wanted
    assert found, "an output without rows has a part that tells its columns"
    for piece in (piece for shard in found for piece in shard):
        home = next(each for each in given if (each.source, each.start) == (piece.source, piece.start))
        assert home.first_row <= piece.low < piece.high <= home.first_row + home.rows
    largest = max(sum(piece.rows for piece in shard) for shard in found)
    assert largest * width <= max(size, width) * 1.25 + width


def test_a_large_row_group_is_cut_so_that_all_runners_have_something_to_do() -> None:
    whole = [Segment(source=0, start=0, stop=1, first_row=0, rows=1_000_000)]
    found = shards.cut(whole, bytes_per_row=12, shard_bytes=64 * 2**20, min_shards=16)
    assert len(found) == 16


def test_little_work_is_not_cut_into_crumbs() -> None:
    few = [Segment(source=0, start=0, stop=1, first_row=0, rows=1000)]
    assert len(shards.cut(few, bytes_per_row=8, shard_bytes=64 * 2**20, min_shards=16)) == 1


def test_a_record_survives_its_encoding() -> None:
    piece = Piece(source=0, start=1, stop=2, first_row=10, low=12, high=20)
    source = Source(key="a.parquet", size_bytes=5, etag='"x"')
    record = RunRecord(job="j", identity="i", number=3, mode="append", sources=(source,), shards=((piece,), ()))
    assert shards.decode(shards.encode(record), "out/_run/3.json") == record
    assert record.total_rows == 8


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": 99, "job": "", "identity": "", "number": 1, "mode": ""}']
)
def test_what_is_no_record_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UserError, match=r"out/_run/3\.json"):
        shards.decode(data, "out/_run/3.json")
