"""Columns and inputs go together by name; what does not fit is told at once, and rows that have no value are errors."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring import columns as column_values
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.records import Batch, numbered
from modelyard.runtime.scoring.refused import Refused
from modelyard.wire.work import TensorSpec


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, *shape))


def tensors(table: pa.Table, *inputs: TensorSpec, columns: tuple[str, ...] = (), keep: tuple[str, ...] = ()) -> Any:
    mapping = Mapping.resolve(table.schema, inputs, columns, keep)
    found, left = mapping.tensors(numbered(table.select(list(mapping.read_columns)), 100))
    return found, left


def refused(table: pa.Table, *inputs: TensorSpec, columns: tuple[str, ...] = (), keep: tuple[str, ...] = ()) -> str:
    with pytest.raises(Refused) as caught:
        Mapping.resolve(table.schema, inputs, columns, keep)
    assert caught.value.reason == Reason.SCHEMA_MISMATCH
    return caught.value.message


def test_scalars_and_lists_go_to_the_inputs_of_their_names() -> None:
    table = pa.table(
        {
            "age": pa.array([1, 2], pa.int32()),
            "pixels": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
            "words": [["a", "b"], ["c", "d"]],
            "text": ["x", "ü"],
            "flag": [True, False],
        }
    )
    found, left = tensors(
        table,
        spec("age", "FP32", 1),
        spec("pixels", "FP32", 2),
        spec("words", "BYTES", -1),
        spec("text", "BYTES"),
        spec("flag", "BOOL"),
    )
    assert found["age"].tolist() == [[1.0], [2.0]]
    assert (found["pixels"].dtype, found["pixels"].tolist()) == (np.float32, [[1.0, 2.0], [3.0, 4.0]])
    assert found["words"].tolist() == [[b"a", b"b"], [b"c", b"d"]]
    assert found["text"].tolist() == [b"x", "ü".encode()]
    assert found["flag"].tolist() == [True, False]
    assert left.errors == ()


def test_a_matrix_is_made_of_the_columns_that_are_listed_or_of_all_but_the_kept() -> None:
    table = pa.table({"id": [7, 8], "b": [1.0, 2.0], "a": [3, 4]})
    found, _ = tensors(table, spec("X", "FP64", 2), columns=("a", "b"))
    assert found["X"].tolist() == [[3.0, 1.0], [4.0, 2.0]]
    found, _ = tensors(table, spec("X", "FP64", 2), keep=("id",))
    assert found["X"].tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_a_list_column_may_have_another_name_than_the_only_input() -> None:
    table = pa.table({"id": [1], "pixels": [[1.0, 2.0]]})
    found, _ = tensors(table, spec("X", "FP64", 2), columns=("pixels",))
    assert found["X"].tolist() == [[1.0, 2.0]]


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    table = pa.table({"agee": [1], "name": ["x"], "score": [0.5], "items": [[1]]})
    inputs = (spec("age", "FP32"), spec("name", "FP32"), spec("score", "INT64"), spec("items", "INT64"))
    told = refused(table, *inputs, keep=("id",))
    assert "output.keep: there is no column id" in told
    assert "input age of the model: there is no column age, did you mean agee?" in told
    assert "column name is string, and input name of the model takes FP32" in told
    assert "column score is double, and input score of the model takes INT64" in told
    assert "column items is list<item: int64>" in told


def test_the_wrong_number_of_columns_is_told_with_both_numbers() -> None:
    table = pa.table({"a": [1.0], "b": [1.0], "c": [1.0]})
    assert "names 2 columns, and input X of the model takes 3" in refused(
        table, spec("X", "FP64", 3), columns=("a", "b")
    )
    assert "list its 2 columns in input.columns" in refused(table, spec("X", "FP64", 2))


def test_rows_without_a_value_are_errors_with_their_kept_columns() -> None:
    table = pa.table({"id": [1, 2, 3, 4], "x": [0.5, None, 1.5, None], "v": [[1, 2], [1, 2], [1], None]})
    found, left = tensors(table, spec("x", "FP64"), spec("v", "INT64", 2), keep=("id",))
    assert found["x"].tolist() == [0.5]
    assert found["v"].tolist() == [[1, 2]]
    assert left.rows.tolist() == [100]
    assert [(each.row, each.code, each.key) for each in left.errors] == [
        (101, "NullValue", {"id": 2}),
        (102, "ShapeMismatch", {"id": 3}),
        (103, "NullValue", {"id": 4}),
    ]
    assert left.errors[1].message == "v has the shape [1], expected [2]"


def test_numbers_that_the_model_cannot_hold_are_errors_of_their_rows() -> None:
    table = pa.table({"x": [1, 300, -1], "v": [[1], [2], [70000]]})
    found, left = tensors(table, spec("x", "UINT8"), spec("v", "INT16", 1))
    assert found["x"].tolist() == [1]
    assert [each.message for each in left.errors] == [
        "x is 300, which UINT8 cannot hold",
        "x is -1, which UINT8 cannot hold",
    ]


def test_dictionaries_and_nested_lists_are_unfolded() -> None:
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    nested = pa.array([[[1, 2], [3, 4]]] * 3)
    found, _ = tensors(pa.table({"w": words, "n": nested}), spec("w", "BYTES"), spec("n", "FP32", 2, 2))
    assert found["w"].tolist() == [b"a", b"b", b"a"]
    assert found["n"].shape == (3, 2, 2)


@given(
    rows=st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(-10, 10)), max_size=3)), max_size=20),
    kind=st.sampled_from(["list", "large"]),
)
def test_every_row_of_a_list_column_is_scored_or_an_error(rows: list[Any], kind: str) -> None:
    inner = pa.list_(pa.float64()) if kind == "list" else pa.large_list(pa.float64())
    table = pa.table({"v": pa.array(rows, inner)})
    found, left = tensors(table, spec("v", "FP64", 2))
    good = [row for row in rows if row is not None and len(row) == 2 and None not in row]
    assert found["v"].reshape(-1, 2).tolist() == good
    assert len(left.errors) == len(rows) - len(good)


def outputs(found: dict[str, Any], *specs: TensorSpec, rows: int = 2) -> pa.Table:
    table = pa.table({"id": list(range(rows)), "y": list(range(rows)), "x": [0.0] * rows})
    mapping = Mapping.resolve(table.schema, (spec("x", "FP64"),), (), ("id", "y"))
    return mapping.output_table(numbered(table, 0), specs, found)


def test_outputs_become_columns_beside_what_is_kept() -> None:
    found = outputs(
        {
            "label": np.array([b"a", b"\xff"], object),
            "y": np.array([[1.5], [2.5]], np.float32),
            "p": np.arange(4.0).reshape(2, 2),
            "open": np.arange(6).reshape(2, 3),
        },
        spec("label", "BYTES"),
        spec("y", "FP32", 1),
        spec("p", "FP64", 2),
        spec("open", "INT64", -1),
    )
    assert found.schema.names == ["id", "y", "label", "y_1", "p", "open"]
    assert found.to_pylist()[1] == {"id": 1, "y": 1, "label": "\ufffd", "y_1": 2.5, "p": [2.0, 3.0], "open": [3, 4, 5]}
    assert str(found.schema.field("p").type) == "fixed_size_list<item: double>[2]"


def test_outputs_of_another_shape_are_no_columns() -> None:
    with pytest.raises(ValueError, match="3 rows for 2"):
        outputs({"y": np.zeros(3)}, spec("y", "FP64"))


def png(height: int, width: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def test_images_are_decoded_to_the_layout_of_the_model() -> None:
    schema = pa.schema([("path", pa.string()), ("image", pa.binary())])
    table = pa.table({"path": ["a", "b", "c"], "image": [png(2, 5), b"no image", png(4, 4)]}, schema=schema)
    for layout, shape in (((2, 5, 3), (1, 2, 5, 3)), ((3, 2, 5), (1, 3, 2, 5))):
        mapping = Mapping.resolve(schema, (spec("x", "UINT8", *layout),), (), ("path",))
        found, left = mapping.tensors(Batch(table=table, rows=np.arange(3)))
        assert found["x"].shape == shape
        assert (found["x"] == 7).all()
        assert [(each.row, each.code, each.key["path"]) for each in left.errors] == [
            (1, "ImageInvalid", "b"),
            (2, "ImageInvalid", "c"),
        ]
    mapping = Mapping.resolve(schema, (spec("x", "BYTES"),), (), ("path",))
    found, _ = mapping.tensors(Batch(table=table, rows=np.arange(3)))
    assert found["x"][1] == b"no image"


def test_without_pillow_images_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_values, "Image", None)
    schema = pa.schema([("path", pa.string()), ("image", pa.binary())])
    mapping = Mapping.resolve(schema, (spec("x", "UINT8", 2, 2, 3),), (), ())
    table = pa.table({"image": [b"x"]}, schema=pa.schema([("image", pa.binary())]))
    with pytest.raises(Refused, match=r"pip install 'modelyard\[images\]'") as caught:
        mapping.tensors(numbered(table, 0))
    assert caught.value.reason == Reason.ENVIRONMENT_MISSING


def test_columns_of_one_name_are_refused_where_they_are_used() -> None:
    table = pa.table([[1.0], [2.0], [3.0]], names=["x", "z", "z"])
    assert "there are several columns z" in refused(table, spec("x", "FP64"), keep=("z",))
    assert "there are several columns z" in refused(table, spec("z", "FP64"))
    assert "there are several columns z" in refused(table, spec("m", "FP64", 2), columns=("z", "z"))
    two = pa.table([[1.0], [2.0]], names=["z", "z"])
    assert "there is no column m" in refused(two, spec("m", "FP64", 2))
    assert Mapping.resolve(table.schema, (spec("x", "FP64"),), (), ()).read_columns == ("x",)


def test_unions_cannot_be_kept() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    told = refused(pa.table({"x": [1.0], "k": union}), spec("x", "FP64"), keep=("k",))
    assert told == "output.keep: column k is sparse_union<0: int64=0>, which cannot be kept"


def test_numbers_that_a_shorter_type_cannot_hold_are_errors() -> None:
    table = pa.table({"a": [1.0, 1e300, float("inf")], "b": pa.array([1, 2, 3], pa.int64())})
    found, left = tensors(table, spec("a", "FP32"))
    assert found["a"].tolist() == [1.0, float("inf")], "what is infinite already stays so"
    assert [(each.row, each.code, each.message) for each in left.errors] == [
        (101, "OutOfRange", "a is 1e+300, which FP32 cannot hold")
    ]
    found, left = tensors(table, spec("m", "FP32", 2), columns=("a", "b"))
    assert [each.row for each in left.errors] == [101]
    assert found["m"].tolist() == [[1.0, 1.0], [float("inf"), 3.0]]
    big = pa.table({"a": pa.array([2**64 - 1, 1], pa.uint64())})
    _, left = tensors(big, spec("a", "FP16"))
    assert [each.code for each in left.errors] == ["OutOfRange"]


def test_a_list_that_is_null_comes_first() -> None:
    found, left = tensors(pa.table({"x": pa.array([None, [1.0, 2.0]])}), spec("x", "FP64", -1))
    assert found["x"].tolist() == [[1.0, 2.0]]
    assert [(each.row, each.code) for each in left.errors] == [(100, "NullValue")]


def test_keys_of_errors_are_values_of_json_whatever_their_types_are() -> None:
    columns = {
        "day": pa.array([2**30], pa.date32()),
        "at": pa.array([2**62], pa.timestamp("s")),
        "zone": pa.array([0], pa.timestamp("s", "No/Where")),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    }
    _, left = tensors(pa.table({"x": pa.nulls(1, pa.float64()), **columns}), spec("x", "FP64"), keep=tuple(columns))
    assert left.errors[0].key == {
        "day": "<value out of range: 1073741824>",
        "at": "<value out of range: 4611686018427387904>",
        "zone": "1970-01-01T00:00:00+00:00",
        "map": "(map<string, int64>)",
    }


def test_images_of_several_sizes_are_put_side_by_side_with_their_like() -> None:
    sizes = spec("image", "UINT8", -1, -1, 3)
    table = pa.table({"image": [b"?", png(1, 2), png(3, 3), png(1, 2)[:-24], png(1, 2), None]})
    mapping = Mapping.resolve(table.schema, (sizes,), (), ())
    parts = [mapping.tensors(each) for each in mapping.alike(numbered(table, 0))]
    assert [(found["image"].shape, left.rows.tolist()) for found, left in parts] == [
        ((0, 1, 1, 3), []),
        ((2, 1, 2, 3), [1, 4]),
        ((1, 3, 3, 3), [2]),
    ]
    assert [each.row for _, left in parts for each in left.errors] == [0, 5, 3]
    found, left = mapping.tensors(numbered(table, 0))
    assert (found["image"].shape, left.rows.tolist()) == ((2, 1, 2, 3), [1, 4])
