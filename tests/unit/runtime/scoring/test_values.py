"""Columns of any type as JSON, and parts in any format: an error that names the column, never Arrow's own."""

import io
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.parts import Part
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.values import has_values, json_values

NAN = float("nan")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001", None]),
        (pa.array([1], pa.timestamp("us", "Europe/Berlin")), ["1970-01-01T00:00:00.000001+00:00"]),
        (pa.array([1], pa.timestamp("s", "No/Where")), ["1970-01-01T00:00:01+00:00"]),
        (pa.array([0, None], pa.date32()), ["1970-01-01", None]),
        (pa.array([2**30], pa.date32()), ["<value out of range: 1073741824>"]),
        (pa.array([Decimal("1.50"), None]), ["1.50", None]),
        (pa.array([1.5, NAN, float("inf"), None]), [1.5, None, None, None]),
        (pa.array([np.float16(1.5), None], pa.float16()), [1.5, None]),
        (pa.array([b"a\xff", None]), ["a\ufffd", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([[1.5, NAN], None, []]), [[1.5, None], None, []]),
        (pa.array([[1], [2, 3], [4]])[1:], [[2, 3], [4]]),
        (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2))[1:], [None, [3, 4]]),
        (pa.array([[[b"a"]], [None]], pa.large_list(pa.list_(pa.binary()))), [[["a"]], [None]]),
        (pa.array([{"a": 1, "b": b"x"}, None]), [{"a": 1, "b": "x"}, None]),
        (pa.array([{"a": 1}, {"a": 2}])[1:], [{"a": 2}]),
        (pa.array([{}, {}], pa.struct([])), [{}, {}]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_values_are_those_of_json(array: pa.Array, expected: list[Any]) -> None:
    assert has_values(array.type)
    assert json_values(array) == json_values(pa.chunked_array([array])) == expected
    json.dumps(expected, allow_nan=False)


@pytest.mark.parametrize("format_name", ["parquet", "csv", "arrow"])
def test_types_and_values_that_a_format_does_not_have_are_refused(format_name: str) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    odd = {
        "parquet": [union, pa.array([pa.MonthDayNano([1, 2, 3])] * 2), pa.array([{}, {}], pa.struct([]))],
        "csv": [pa.array(["a", "b"], pa.string_view()), pa.array([0, 1], pa.timestamp("s", "No/Where"))],
        "arrow": [_deep()],
    }[format_name]
    for array in odd:
        table = pa.table({"k": array})
        with pytest.raises(Refused, match=rf"\(k .*\) cannot be written as {format_name}") as caught:
            written(format_name, table)
        assert caught.value.reason is Reason.SCHEMA_MISMATCH


def written(format_name: str, table: pa.Table) -> bytes:
    part = Part(format_name, table.schema, {})
    part.write(table)
    return part.finish()


def _deep() -> pa.Array:
    found = pa.array([1, 2])
    for _ in range(100):
        found = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), found)
    return found


def test_lines_of_json_have_no_number_that_json_has_not() -> None:
    table = pa.table({"y": [NAN, 1.5], "l": [[float("inf")], [2.0]], "b": [b"\xff", b"a"]})
    lines = [json.loads(line, parse_constant=pytest.fail) for line in io.BytesIO(written("jsonl", table))]
    assert lines == [{"y": None, "l": [None], "b": "\ufffd"}, {"y": 1.5, "l": [2.0], "b": "a"}]


def test_bytes_are_text_in_csv() -> None:
    table = pa.table({"b": [b"\xff,", None], "l": [[1], None]})
    assert written("csv", table).decode() == '"b","l"\n"\ufffd,","[1]"\n,"null"\n'
