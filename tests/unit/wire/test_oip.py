import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.wire import oip
from modelyard.wire.work import TensorSpec

INTEGERS = {
    "UINT8": (0, 2**8 - 1),
    "UINT16": (0, 2**16 - 1),
    "UINT32": (0, 2**32 - 1),
    "UINT64": (0, 2**64 - 1),
    "INT8": (-(2**7), 2**7 - 1),
    "INT16": (-(2**15), 2**15 - 1),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}


def request(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    return msgspec.json.encode({"inputs": [tensor], **changes})


def read(data: str, datatype: str = "FP64", shape: tuple[int, ...] = (2,)) -> list[Any]:
    body = b'{"inputs":[{"name":"x","shape":%s,"datatype":"%s","data":%s}]}' % (
        msgspec.json.encode(shape),
        datatype.encode(),
        data.encode(),
    )
    return oip.elements("inputs[0]", oip.decode_request(body).inputs[0])


def refused(data: str, datatype: str = "FP64", shape: tuple[int, ...] = (2,)) -> str:
    with pytest.raises(UserError) as caught:
        read(data, datatype, shape)
    return caught.value.message


def test_a_request_with_everything_is_read() -> None:
    found = oip.decode_request(
        request(id="7", parameters={"a": 1, "b": "c", "d": None}, outputs=[{"name": "y", "parameters": {"e": True}}])
    )
    assert (found.id, found.outputs[0].name if found.outputs else "") == ("7", "y")
    assert found.inputs[0].shape == [1, 2]


def test_absent_and_null_options_are_the_same() -> None:
    plain = oip.decode_request(request())
    nulls = oip.decode_request(request(id=None, parameters=None, outputs=None))
    assert (plain.id, plain.outputs, plain.parameters) == (nulls.id, nulls.outputs, nulls.parameters)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body: is not valid JSON"),
        (b"[]", "the body: expected object, got array"),
        (b"{}", "the body: object missing required field inputs"),
        (b'{"inputs":[],"input":1}', "the body: object contains unknown field input"),
        (b'{"inputs":{}}', "inputs: expected array, got object"),
        (b'{"inputs":[{"name":"x"}]}', "inputs[0]: object missing required field shape"),
        (request(id=7), "id: expected str | null, got int"),
        (b'{"inputs":[{"name":"x","shape":[0],"datatype":"FP32","data":[]}]}', "inputs[0].shape[0]: expected int >= 1"),
        (b'{"inputs":[{"name":"x","shape":[1.5],"datatype":"FP32","data":[]}]}', "inputs[0].shape[0]: expected int"),
        (b'{"inputs":[{"name":"x","shape":[1,1,1,1,1,1,1,1,1],"datatype":"FP32","data":[]}]}', "inputs[0].shape"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "JSON has no NaN"),
        (b'{"inputs":' + b"[" * 100_000, "inputs[0]: expected object, got array"),
        (msgspec.json.encode({"inputs": [], "a\nb" * 999: 1}), "the body: object contains unknown field"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 100_000, "nested too deep"),
        (b'{"inputs":[{"name":"\xff"}]}', "the body: is not UTF-8"),
    ],
)
def test_what_is_not_a_request_is_refused_naming_the_field(body: bytes, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        oip.decode_request(body)
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "sentence"),
    [
        ("[1,2]", "FP8", (2,), "inputs[0].datatype: 'FP8' is unknown; expected BOOL, UINT8"),
        ("[1,2,3]", "FP64", (2,), "inputs[0].data: has 3 elements, but the shape [2] says 2"),
        ("[]", "FP64", (2,), "inputs[0].data: has 0 elements"),
        ("1", "FP64", (1,), "inputs[0].data: expected array, got int"),
        ("null", "FP64", (1,), "inputs[0].data: expected array, got null"),
        ("[[1,2]]", "FP64", (2,), "inputs[0].data: is nested 2 deep, but the shape [2] has 1 dimensions"),
        (
            "[[1,2],[3]]",
            "FP64",
            (2, 2),
            "inputs[0].data: list 1 at depth 1 has 1 elements, but the shape [2, 2] says 2",
        ),
        ("[[1,2]]", "FP64", (2, 2), "inputs[0].data: has 1 rows, but the shape [2, 2] says 2"),
        ("[[1,2],3]", "FP64", (2, 2), "inputs[0].data[1]: expected array, got int"),
        ("[1,null]", "FP64", (2,), "inputs[0].data[1]: expected float, got null"),
        ("[1,true]", "FP64", (2,), "inputs[0].data[1]: expected float, got bool"),
        ("[1,1e999]", "FP64", (2,), "inputs[0].data[1]: number out of range"),
        ("[1,1e39]", "FP32", (2,), "inputs[0].data[1]: expected float <= 3.4"),
        ("[1,65520]", "FP16", (2,), "inputs[0].data[1]: expected float <= 65519"),
        ("[1,1.5]", "INT32", (2,), "inputs[0].data[1]: expected int, got float"),
        ("[1,2.0]", "INT32", (2,), "inputs[0].data[1]: expected int, got float"),
        ("[1,true]", "INT32", (2,), "inputs[0].data[1]: expected int, got bool"),
        ("[true,1]", "BOOL", (2,), "inputs[0].data[1]: expected bool, got int"),
        ('["a",1]', "BYTES", (2,), "inputs[0].data[1]: expected str, got int"),
    ],
)
def test_elements_that_do_not_fit_are_refused_naming_the_place(
    data: str, datatype: str, shape: tuple[int, ...], sentence: str
) -> None:
    assert sentence in refused(data, datatype, shape)


@pytest.mark.parametrize("datatype", INTEGERS)
def test_the_limits_of_an_integer_are_in_and_what_is_beyond_is_out(datatype: str) -> None:
    low, high = INTEGERS[datatype]
    assert read(f"[{low},{high}]", datatype) == [low, high]
    assert "inputs[0].data" in refused(f"[{low - 1},0]", datatype)
    assert "inputs[0].data" in refused(f"[0,{high + 1}]", datatype)
    assert "inputs[0].data" in refused(f"[[0],[{high + 1}]]", datatype, (2, 1))


def test_the_largest_floats_are_in() -> None:
    assert read("[65504,-65504]", "FP16") == [65504, -65504]
    assert read("[3.4028234663852886e38,-3.4028234663852886e38]", "FP32")[0] > 3.4e38


def test_integers_are_floats_where_floats_belong() -> None:
    assert read("[1,2]", "FP32") == [1.0, 2.0]


def test_spaces_and_line_breaks_change_nothing() -> None:
    assert read(" [ \n [ 1 , 2 ] \t, [3,4]\r\n] ", shape=(2, 2)) == [1, 2, 3, 4]


def test_a_scalar_is_a_list_of_one() -> None:
    assert read("[5]", shape=()) == [5]


def nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    step = len(flat) // shape[0]
    return [nest(flat[start : start + step], shape[1:]) for start in range(0, len(flat), step)]


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_nested_data_is_the_same_as_flat_data(shape: list[int], data: st.DataObject) -> None:
    size = math.prod(shape)
    flat = data.draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=size, max_size=size))
    nested = msgspec.json.encode(nest(flat, tuple(shape))).decode()
    assert read(nested, shape=tuple(shape)) == read(msgspec.json.encode(flat).decode(), shape=tuple(shape)) == flat


@given(st.text(max_size=20))
def test_text_comes_through(text: str) -> None:
    try:
        encoded = msgspec.json.encode([text]).decode()
    except UnicodeEncodeError:  # half of a surrogate pair is no text
        return
    assert read(encoded, "BYTES", (1,)) == [text]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "outputs", "id", "name", "shape", "datatype", "data", "parameters"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


def survive(body: bytes) -> None:
    """Anything is read, or refused with one short line."""
    refusal = "refused"
    try:
        for position, tensor in enumerate(oip.decode_request(body).inputs):
            assert len(oip.elements(f"inputs[{position}]", tensor)) == math.prod(tensor.shape)
    except UserError as error:
        refusal = error.message
    assert refusal
    assert len(refusal) < 1000
    assert "\n" not in refusal


@given(st.binary(max_size=200))
@example(b"")
@example(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":"]"}]}')
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    survive(body)


@given(JSON, JSON, st.sampled_from([*oip.DATATYPES, "FP8"]), st.lists(st.integers(-1, 3), max_size=4))
def test_any_json_is_read_or_refused(anything: Any, data: Any, datatype: str, shape: list[int]) -> None:
    survive(msgspec.json.encode(anything))
    survive(
        msgspec.json.encode({"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}),
    )


def test_a_response_echoes_the_id_and_leaves_out_a_missing_one() -> None:
    outputs = [oip.ResponseOutput("y", "FP32", (1, 2), [0.5, 1.0])]
    with_id = msgspec.json.decode(oip.encode_response(oip.InferResponse("m", "3", outputs, "7")))
    assert with_id == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.0]}],
    }
    assert "id" not in msgspec.json.decode(oip.encode_response(oip.InferResponse("m", "3", outputs)))


def test_what_is_not_a_number_is_answered_as_null() -> None:
    outputs = [oip.ResponseOutput("y", "FP64", (3,), [math.nan, math.inf, -math.inf])]
    assert b"[null,null,null]" in oip.encode_response(oip.InferResponse("m", "1", outputs))


def test_errors_and_metadata_are_as_the_protocol_says() -> None:
    assert oip.encode_error('a "b"') == b'{"error":"a \\"b\\""}'
    spec = TensorSpec(name="x", datatype="FP32", shape=(-1, 4))
    assert msgspec.json.decode(oip.encode_model_metadata("m", ["3"], "onnx", [spec], ())) == {
        "name": "m",
        "versions": ["3"],
        "platform": "onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [],
    }
