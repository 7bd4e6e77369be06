"""Whatever is written is read back in order, each row once, with its number, however the file is cut."""

import contextlib
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs import formats
from modelyard.runtime.jobs.formats import lines
from modelyard.runtime.scoring.parts import Part, errors_body
from modelyard.runtime.scoring.records import Batch, RowError, Wanted
from modelyard.runtime.scoring.refused import Refused

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**31), 2**31),
            "x": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
            "name": st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)),
        }
    ),
    max_size=60,
)
SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("name", pa.string())])


class File(io.BytesIO):
    """As of storage."""

    def size(self) -> int:
        return len(self.getvalue())


def written(format_name: str, table: pa.Table, pieces: int = 1) -> File:
    part = Part(format_name, table.schema, {"modelyard.attempt": "1"})
    step = max(1, -(-table.num_rows // pieces))
    for start in range(0, table.num_rows, step):
        part.write(table.slice(start, step))
    return File(part.finish())


def everything(
    format_name: str, file: File, schema: pa.Schema, *, segment_bytes: int = 64, batch_rows: int = 7
) -> list[Batch]:
    found = []
    for segment in formats.survey(format_name, file, "f", segment_bytes):
        wanted = Wanted(
            start=segment.start,
            stop=segment.stop,
            first_row=segment.first_row,
            schema=schema,
            columns=schema.names,
            batch_rows=batch_rows,
        )
        batches = list(formats.read(format_name, file, "f", wanted))
        numbers = [row for each in batches for row in (*each.rows.tolist(), *(e.row for e in each.errors))]
        assert sorted(numbers) == list(range(segment.first_row, segment.first_row + segment.rows))
        found += batches
    return found


def rows_of(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for each in batches for row in each.table.to_pylist()]


@pytest.mark.parametrize("format_name", ["parquet", "arrow", "csv", "jsonl"])
@given(rows=ROWS, pieces=st.integers(1, 5), segment_bytes=st.integers(1, 400), batch_rows=st.integers(1, 20))
def test_any_table_is_read_back(
    format_name: str, rows: list[dict[str, Any]], pieces: int, segment_bytes: int, batch_rows: int
) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    file = written(format_name, table, pieces)
    batches = everything(format_name, file, SCHEMA, segment_bytes=segment_bytes, batch_rows=batch_rows)
    assert rows_of(batches) == table.to_pylist()
    assert np.concatenate([each.rows for each in batches] or [np.array([], int)]).tolist() == list(range(len(rows)))
    assert not [error for each in batches for error in each.errors]
    assert all(each.table.num_rows <= batch_rows for each in batches)


@pytest.mark.parametrize("format_name", ["parquet", "arrow", "csv", "jsonl"])
def test_a_part_without_rows_tells_its_columns(format_name: str) -> None:
    file = written(format_name, SCHEMA.empty_table())
    assert formats.survey(format_name, file, "f", 100) == ()
    if format_name != "jsonl":
        assert formats.schema(format_name, file, "f").names == SCHEMA.names


@pytest.mark.parametrize("format_name", ["csv", "jsonl"])
def test_types_of_text_are_found_once(format_name: str) -> None:
    table = pa.table(
        {"id": [1, 2], "x": [0.5, None], "ok": [True, False], "day": ["2026-01-02", "2026-01-03"], "e": ["", "a"]}
    )
    found = formats.schema(format_name, written(format_name, table), "f")
    assert dict(zip(found.names, map(str, found.types), strict=True)) == {
        "id": "int64",
        "x": "double",
        "ok": "bool",
        "day": "string",
        "e": "string",
    }


def test_csv_with_quotes_line_breaks_marks_and_windows_ends() -> None:
    text = b'\xef\xbb\xbfid,name\r\n1,"a ""b"", c\r\nd"\r\n\r\n2,plain\r\n3,"x"'
    file = File(text)
    schema = formats.schema("csv", file, "f")
    assert schema.names == ["id", "name"]
    for size in (1, 10, 1000):
        found = rows_of(everything("csv", file, schema, segment_bytes=size, batch_rows=1))
        assert [(row["id"], row["name"].replace("\r\n", "\n")) for row in found] == [
            (1, 'a "b", c\nd'),
            (2, "plain"),
            (3, "x"),
        ]


@pytest.mark.parametrize("segment_bytes", [1, 20, 1000])
def test_rows_of_csv_that_are_wrong_are_errors_of_theirs(segment_bytes: int) -> None:
    text = b"id,x\n1,0.5\n2\n3,1,2\n4,abc\n\n5,\n 6 , 7 \n"
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64())])
    batches = everything("csv", File(text), schema, segment_bytes=segment_bytes, batch_rows=2)
    assert [(row["id"], row["x"]) for row in rows_of(batches)] == [(1, 0.5), (5, None), (6, 7.0)]
    errors = sorted((error for each in batches for error in each.errors), key=lambda each: each.row)
    assert [(each.row, each.code) for each in errors] == [(1, "Unreadable"), (2, "Unreadable"), (3, "BadValue")]
    assert "x: 'abc' is no double" in errors[2].message
    assert "1 fields, the header has 2" in errors[0].message


@pytest.mark.parametrize("segment_bytes", [1, 30, 1000])
def test_lines_of_json_that_are_wrong_are_errors_of_theirs(segment_bytes: int) -> None:
    text = b'{"id": 1, "x": 0.5}\n[1]\n{"id": "a", "x": 1}\n\n'
    text += b'{"id": 2, "extra": {"deep": 1}}\n{"id": 3,\n{"id": 4, "x": 2}'
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64())])
    batches = everything("jsonl", File(text), schema, segment_bytes=segment_bytes, batch_rows=2)
    assert [(row["id"], row["x"]) for row in rows_of(batches)] == [(1, 0.5), (2, None), (4, 2.0)]
    errors = [error for each in batches for error in each.errors]
    assert [(each.row, each.code) for each in errors] == [(1, "Unreadable"), (2, "Unreadable"), (4, "Unreadable")]


def test_text_in_another_encoding_names_the_file_and_the_row() -> None:
    file = File("id,name\n1,a\n2,über\n".encode("latin-1"))
    with pytest.raises(Refused, match=r"people\.csv is not text in UTF-8, near row 1") as caught:
        formats.schema("csv", file, "people.csv")
    assert caught.value.reason == Reason.INPUT_INVALID


def test_parquet_that_is_damaged_in_the_middle_names_the_row_group() -> None:
    table = pa.table({"id": np.arange(3000)})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=1000, use_dictionary=False, compression="zstd")
    data = bytearray(sink.getvalue())
    start = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0).data_page_offset
    data[start + 20 : start + 400] = bytes(380)
    file = File(bytes(data))
    wanted = Wanted(start=1, stop=2, first_row=1000, schema=table.schema, columns=["id"], batch_rows=500)
    with pytest.raises(Refused, match=r"a\.parquet, row group 1 cannot be read") as caught:
        list(formats.read("parquet", file, "a.parquet", wanted))
    assert caught.value.reason == Reason.INPUT_INVALID


@pytest.mark.parametrize("format_name", ["parquet", "arrow"])
def test_files_of_other_columns_or_types_are_refused_by_name(format_name: str) -> None:
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("y", pa.float64())])
    file = written(format_name, pa.table({"id": [1], "x": ["a"]}))
    wanted = Wanted(start=0, stop=1, first_row=0, schema=schema, columns=schema.names, batch_rows=5)
    with pytest.raises(Refused, match=r"b: column x is string, and double in the first file; there is no column y"):
        list(formats.read(format_name, file, "b", wanted))
    narrow = written(
        format_name, pa.table({"id": pa.array([1], pa.int32()), "x": pa.array([1], pa.float32()), "y": [1.0]})
    )
    assert rows_of(list(formats.read(format_name, narrow, "c", wanted))) == [{"id": 1, "x": 1.0, "y": 1.0}]


def test_images_are_rows_of_their_names_and_bytes() -> None:
    assert formats.of_name("a/b.JPG") == "images"
    (batch,) = everything("images", File(b"pixels"), formats.schema("images", File(b""), "a.png"))
    assert batch.table.to_pylist() == [{"path": "f", "image": b"pixels"}]


@pytest.mark.parametrize(
    "line", [b"null", b" null ", b'{"id": 1}null', b'{"id": 1}{"id": 2}', b"nulltrue", b"{}null[[["]
)
def test_lines_that_end_arrows_own_reader_are_errors_of_their_rows(line: bytes) -> None:
    schema = pa.schema([("id", pa.int64())])
    batches = everything("jsonl", File(b'{"id": 1}\n' + line + b"\n"), schema)
    assert rows_of(batches) == [{"id": 1}]
    assert [error.row for each in batches for error in each.errors] == [1]


@pytest.mark.parametrize("format_name", formats.FORMATS)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)))
def test_any_bytes_end_in_rows_or_a_sentence(format_name: str, data: bytes) -> None:
    file = File(data)
    with contextlib.suppress(Refused):
        everything(format_name, file, formats.schema(format_name, file, "f"))


@given(
    data=st.lists(st.sampled_from([b"a", b'"', b"\n", b"\r\n", b",", "é".encode()]), max_size=60).map(b"".join),
    cut=st.integers(0, 60),
)
def test_record_ends_do_not_depend_on_where_the_data_is_cut(data: bytes, cut: int) -> None:
    whole, inside = lines.ends(data, quotes=True)
    cut = min(cut, len(data))
    head, open_at_cut = lines.ends(data[:cut], quotes=True)
    tail, open_at_end = lines.ends(data[cut:], quotes=True, inside=open_at_cut)
    assert [*head.tolist(), *(tail + cut).tolist()] == whole.tolist()
    assert open_at_end == inside


def test_dead_letters_are_lines_of_json_whatever_their_keys_are() -> None:
    errors = [
        RowError(
            row=3,
            code="NullValue",
            message="x is null",
            key={"id": 1, "raw": b"\xff", "day": np.datetime64("2026-01-02").item()},
        )
    ]
    line = json.loads(errors_body(errors, "a.parquet"))
    assert line == {
        "file": "a.parquet",
        "row": 3,
        "key": {"id": 1, "raw": "\ufffd", "day": "2026-01-02"},
        "code": "NullValue",
        "message": "x is null",
    }


@pytest.mark.parametrize("format_name", ["parquet", "arrow", "csv", "jsonl"])
def test_a_part_tells_how_large_it_has_become(format_name: str) -> None:
    table = pa.table({"x": np.random.default_rng(0).random(300_000)})
    part = Part(format_name, table.schema, {})
    part.write(table)
    assert 2**20 < part.size_bytes <= len(part.finish())


def test_lines_of_json_that_are_too_deep_or_no_text_are_errors_of_theirs() -> None:
    good = b'{"id": 1, "x": 1, "name": "a"}\n'
    deep = b'{"id": 1, "x": 1, "name": "a", "more": ' + b"[" * 5000 + b"]" * 5000 + b"}\n"
    no_text = b'{"id": 1, "x": 1, "name": "\xff"}\n'
    file = File(good + deep + no_text + good)
    batches = everything("jsonl", file, formats.schema("jsonl", file, "f"), segment_bytes=1 << 20)
    assert [int(row) for each in batches for row in each.rows] == [0, 3]
    assert [(error.row, error.code) for each in batches for error in each.errors] == [
        (1, "Unreadable"),
        (2, "Unreadable"),
    ]


@pytest.mark.parametrize("format_name", ["parquet", "arrow"])
def test_names_of_columns_that_are_no_text_are_refused(format_name: str) -> None:
    body = written(format_name, pa.table({"oddname": [1]})).getvalue().replace(b"oddname", b"\xffddname")
    with pytest.raises(Refused, match="f cannot be read"):
        formats.schema(format_name, File(body), "f")


def test_a_row_group_with_fewer_rows_than_its_footer_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    file = written("parquet", pa.table({"id": [1, 2]}))
    # As pyarrow 26 does where the number of values in a column chunk is damaged: it ends, and says nothing.
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda _self, **_options: iter(()))
    with pytest.raises(Refused, match="f, row group 0 lacks 2 rows"):
        everything("parquet", file, pa.schema([("id", pa.int64())]))


@pytest.mark.parametrize("format_name", ["parquet", "arrow"])
def test_a_later_file_with_two_columns_of_a_name_is_refused(format_name: str) -> None:
    sink = io.BytesIO()
    table = pa.table([[1], [2]], names=["id", "id"])
    if format_name == "parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(Refused, match="f: there are several columns id"):
        everything(format_name, File(sink.getvalue()), pa.schema([("id", pa.int64())]))
