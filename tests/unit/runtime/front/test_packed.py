"""Arrays in gRPC messages, against the messages that protobuf and Triton's client make."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from modelyard.base.errors import UserError
from modelyard.runtime.front import packed
from modelyard.runtime.front.tensors import DTYPES
from modelyard.wire.oip_grpc import CONTENTS, RequestInput, decode_infer

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.binary(max_size=300),
    "FP16": st.floats(width=16),
    "FP32": st.floats(width=32),
    "FP64": st.floats(),
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}


@st.composite
def arrays(draw: st.DrawFn) -> tuple[str, Any]:
    datatype = draw(st.sampled_from(sorted(VALUES)))
    values = draw(st.lists(VALUES[datatype], min_size=1, max_size=30))
    array: Any = np.empty(len(values), DTYPES[datatype])
    array[:] = values
    return datatype, array


def sent(datatype: str, data: Any, count: int = 1, kind: int = 0) -> RequestInput:
    return RequestInput(name="x", datatype=datatype, shape=[count], data=data, kind=kind)


def equal(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f")) and one.dtype == other.dtype


@given(arrays())
def test_raw_tensors_are_tritons(case: tuple[str, Any]) -> None:
    datatype, array = case
    theirs = serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()
    assert packed.raw_bytes(array) == theirs
    found = packed.raw_elements(0, sent(datatype, memoryview(theirs), len(array)))
    assert equal(found, array)
    if datatype == "BYTES":
        assert list(deserialize_bytes_tensor(packed.raw_bytes(array))) == list(array)


@given(arrays())
def test_contents_are_protobufs(case: tuple[str, Any]) -> None:
    datatype, array = case
    if datatype == "FP16":
        return
    kind, name = CONTENTS[datatype]
    theirs = pb2.InferTensorContents(**{name: array.tolist()})
    message = pb2.ModelInferRequest(
        inputs=[{"name": "x", "datatype": datatype, "shape": [len(array)], "contents": theirs}]
    )
    found = decode_infer(message.SerializeToString()).inputs[0]
    assert found.kind == kind
    assert equal(packed.contents_elements(0, found), array)
    ours = packed.contents(array)
    if isinstance(ours, list):
        assert ours == list(theirs.bytes_contents)
    else:
        assert found.data == ours


def test_long_lists_are_read_and_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_AT_ONE_GO", 7)
    values = [(-1) ** power * 2**power for power in range(63)] * 3
    ours = packed.contents(np.array(values))
    theirs = pb2.InferTensorContents(int64_contents=values).SerializeToString()
    assert isinstance(ours, bytes)
    assert theirs.endswith(ours)
    assert packed.contents_elements(0, sent("INT64", ours, len(values), 3)).tolist() == values
    with pytest.raises(UserError, match=r"int_contents\[20\]: 200 is not INT8"):
        packed.contents_elements(0, sent("INT8", b"\x01" * 20 + b"\xc8\x01" + b"\x01" * 20, 41, 2))


@given(st.binary(max_size=60), st.sampled_from(sorted(VALUES)), st.integers(1, 5), st.booleans())
def test_any_bytes_are_elements_or_refused(data: bytes, datatype: str, count: int, raw: bool) -> None:
    said = ""
    try:
        if raw:
            found = packed.raw_elements(0, sent(datatype, memoryview(data), count))
        else:
            found = packed.contents_elements(0, sent(datatype, data, count, CONTENTS.get(datatype, (0, ""))[0]))
    except UserError as error:
        said = error.message
    assert "[0]" in said or found.shape == (count,)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (sent("FP32", b"123"), "raw_input_contents[0]: has 3 bytes, but FP32 of the shape [1] has 4"),
        (sent("BYTES", b"\x05\0\0\0abc"), "raw_input_contents[0]: is cut off in element 0"),
        (sent("BYTES", b"\x05\0\0"), "raw_input_contents[0]: is cut off in element 0"),
        (sent("BYTES", b"\0\0\0\0" * 2), "raw_input_contents[0]: has 2 elements or more, but the shape [1] says 1"),
        (
            sent("BYTES", b"", 2**22 + 1),
            "raw_input_contents[0]: has more than 4194304 elements; send fewer rows",
        ),
    ],
)
def test_what_is_wrong_with_raw_bytes_is_said(tensor: RequestInput, said: str) -> None:
    with pytest.raises(UserError) as caught:
        packed.raw_elements(0, tensor)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (sent("FP16", b"", kind=6), "inputs[0].contents: FP16 has no contents; send it in raw_input_contents"),
        (sent("FP32", b""), "inputs[0].contents: is missing; FP32 goes into fp32_contents"),
        (sent("FP32", b"12345678", kind=7), "inputs[0].contents: FP32 goes into fp32_contents"),
        (sent("FP32", b"12345", kind=6), "fp32_contents: has 5 bytes, which is not a multiple of 4"),
        (sent("FP32", b"12345678", kind=6), "fp32_contents: has 2 elements, but the shape [1] says 1"),
        (sent("INT32", b"\x80", kind=2), "int_contents: is cut off in its last element"),
        (sent("INT32", b"\x80" * 10 + b"\0", kind=2), "int_contents: an integer has more than ten bytes"),
        (sent("INT32", b"\x80" * 200_000 + b"\0", kind=2), "int_contents: an integer has more than ten bytes"),
        (sent("INT8", b"\x01\x80\x01", 2, kind=2), "inputs[0].contents.int_contents[1]: 128 is not INT8"),
        (sent("UINT16", b"\x80\x80\x04", kind=4), "inputs[0].contents.uint_contents[0]: 65536 is not UINT16"),
    ],
)
def test_what_is_wrong_with_contents_is_said(tensor: RequestInput, said: str) -> None:
    with pytest.raises(UserError) as caught:
        packed.contents_elements(0, tensor)
    assert said in caught.value.message
