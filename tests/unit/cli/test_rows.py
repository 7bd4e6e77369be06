import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.cli import rows
from modelyard.sdk.tensors import Metadata, Tensor

MATRIX = Metadata(name="m", inputs=(Tensor("X", "FP64", (-1, 2)),), outputs=())
VECTOR = Metadata(name="m", inputs=(Tensor("text", "BYTES", (-1,)),), outputs=())
COLUMNS = Metadata(name="m", inputs=(Tensor("age", "INT64", (-1, 1)), Tensor("city", "BYTES", (-1, 1))), outputs=())


def plain(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in inputs.items()}


@pytest.mark.parametrize(
    ("value", "metadata", "expected"),
    [
        ([1, 2], MATRIX, {"X": [[1, 2]]}),
        ([[1, 2], [3, 4]], MATRIX, {"X": [[1, 2], [3, 4]]}),
        ({"X": [[1, 2]]}, MATRIX, {"X": [[1, 2]]}),
        ("hello", VECTOR, {"text": ["hello"]}),
        (["a", "b"], VECTOR, {"text": ["a", "b"]}),
        ({"age": 3, "city": "Ulm"}, COLUMNS, {"age": [[3]], "city": [["Ulm"]]}),
        ([{"age": 3, "city": "a"}, {"city": "b", "age": 4}], COLUMNS, {"age": [[3], [4]], "city": [["a"], ["b"]]}),
        ({"age": [3, 4], "city": ["a", "b"]}, COLUMNS, {"age": [[3], [4]], "city": [["a"], ["b"]]}),
        (
            {"inputs": [{"name": "X", "shape": [2, 2], "datatype": "FP64", "data": [1, 2, 3, 4]}]},
            MATRIX,
            {"X": [[1, 2], [3, 4]]},
        ),
    ],
)
def test_rows_may_be_written_in_many_ways(value: Any, metadata: Metadata, expected: dict[str, Any]) -> None:
    assert plain(rows.from_json(value, metadata)) == expected


@pytest.mark.parametrize(
    ("text", "metadata", "expected"),
    [
        ("1,2\n3,4\n", MATRIX, {"X": [[1.0, 2.0], [3.0, 4.0]]}),
        ("a,b\r\n3,4\r\n", MATRIX, {"X": [[3.0, 4.0]]}),
        ('"x, y"\nz\n', VECTOR, {"text": ["x, y", "z"]}),
        ("city,age\nUlm,3\nRom,4\n", COLUMNS, {"city": [["Ulm"], ["Rom"]], "age": [[3], [4]]}),
    ],
)
def test_csv_has_a_header_where_it_is_needed(text: str, metadata: Metadata, expected: dict[str, Any]) -> None:
    assert plain(rows.from_csv(text, metadata)) == expected


@pytest.mark.parametrize(
    ("text", "metadata", "expected"),
    [
        ("", MATRIX, "there are no rows"),
        ("1,2\n3\n", MATRIX, "row 2 has 1 values, the first has 2"),
        ("1,2\nx,4\n", MATRIX, "row 2: 'x' is no value of FP64, which X takes"),
        ("1,x\n3,4\n", MATRIX, "row 1: 'x' is no value of FP64"),
        ("1,2,3\n", MATRIX, "X: the rows have 3 values; the model takes 2"),
        ("a,b\n", MATRIX, "X: there are no values"),
        ("1,2\n", COLUMNS, "the first line must name the inputs age, city; unknown: 1, 2"),
    ],
)
def test_a_bad_row_is_named(text: str, metadata: Metadata, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        rows.from_csv(text, metadata)


def test_files_are_read_by_their_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.0, 2.0]]))
    (tmp_path / "x.json").write_text("[1, 2]")
    (tmp_path / "x.csv").write_text("1,2\n")
    for name in ("x.npy", "x.json", "x.csv"):
        assert plain(rows.read(None, str(tmp_path / name), MATRIX)) == {"X": [[1.0, 2.0]]}
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match="is not an array of numbers"):
        rows.read(None, str(tmp_path / "evil.npy"), MATRIX)
    with pytest.raises(UserError, match="cannot be read"):
        rows.read(None, str(tmp_path / "missing.csv"), MATRIX)
    with pytest.raises(UserError, match="--data is not JSON"):
        rows.read("[1,", None, MATRIX)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["inputs", "age", "city", "X", "name", "shape", "data"]), inner, max_size=4)
    ),
)


@given(json_values, st.sampled_from([MATRIX, VECTOR, COLUMNS]))
def test_whatever_people_write_ends_in_inputs_or_a_sentence(value: Any, metadata: Metadata) -> None:
    with contextlib.suppress(UserError):
        rows.from_json(value, metadata)


@given(st.text(max_size=30), st.sampled_from([MATRIX, VECTOR, COLUMNS]))
def test_whatever_a_file_holds_ends_in_inputs_or_a_sentence(text: str, metadata: Metadata) -> None:
    with contextlib.suppress(UserError):
        rows.from_csv(text, metadata)
