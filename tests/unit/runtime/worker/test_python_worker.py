"""The worker's own reader and writer against the server's."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from modelyard.runtime.worker import python_worker
from modelyard.runtime.worker.tensors import from_tensor, to_tensor, zeros
from modelyard.wire import frames
from modelyard.wire.frames import Frame, Kind
from modelyard.wire.work import TensorSpec


def channel(data: bytes = b"") -> tuple[python_worker.Channel, io.BytesIO]:
    sink = io.BytesIO()
    return python_worker.Channel(io.BytesIO(data), sink), sink  # type: ignore[arg-type]


numbers = st.sampled_from(range(12)).flatmap(
    lambda index: st.tuples(
        st.just(frames.DATATYPES[index]),
        arrays.arrays(python_worker.DTYPES[index], arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    )
)
words = st.lists(st.binary(max_size=12), max_size=5).map(lambda found: ("BYTES", np.array([*found, None], object)[:-1]))
named = st.tuples(st.text(max_size=12), numbers | words)
texts = st.lists(st.tuples(st.text(max_size=9), st.text(max_size=30)), max_size=3)


@given(texts, st.lists(named, max_size=3), st.integers(0, 2**32 - 1))
def test_what_the_server_sends_is_what_the_worker_reads_and_sends_back(
    told: list[tuple[str, str]], tensors: list[tuple[str, tuple[str, Any]]], number: int
) -> None:
    sent = tuple(to_tensor(name, datatype, array) for name, (datatype, array) in tensors)
    frame = Frame(kind=Kind.INFER, number=number, texts=tuple(told), tensors=sent)
    worker, sink = channel(b"".join(bytes(piece) for piece in frames.encode(frame)))
    read = worker.read()
    assert read is not None
    assert read[:3] == (Kind.INFER, number, told)
    worker.write(python_worker.RESULT, read[1], read[2], read[3])
    data = sink.getvalue()
    answer = frames.decode(frames.decode_header(data[:16]), data[16:])
    assert (answer.kind, answer.number, answer.texts) == (Kind.RESULT, number, frame.texts)
    for tensor, (name, (datatype, array)) in zip(answer.tensors, tensors, strict=True):
        assert (tensor.name, tensor.datatype) == (name, datatype)
        np.testing.assert_array_equal(from_tensor(tensor), array)


def test_the_end_of_the_pipe_is_no_frame() -> None:
    assert channel()[0].read() is None
    assert channel(bytes(5))[0].read() is None


@pytest.mark.parametrize(
    ("labels", "number", "expected"),
    [
        (np.array([1, 2], np.int32), python_worker.INT64, [1, 2]),
        (np.array([True]), python_worker.INT64, [1]),
        (np.array([0.5], np.float32), python_worker.FP64, [0.5]),
        (np.array(["ä", "b"]), python_worker.BYTES, ["ä".encode(), b"b"]),
        (np.array(["a", "b"], object), python_worker.BYTES, [b"a", b"b"]),
        (np.array([1, 2], object), python_worker.INT64, [1, 2]),
    ],
)
def test_labels_become_int64_fp64_or_bytes(labels: Any, number: int, expected: list[Any]) -> None:
    datatype, array = python_worker.labelled(labels)
    assert (datatype, array.tolist()) == (number, expected)


def test_an_error_is_told_in_one_line_with_its_type_unless_it_is_about_the_value() -> None:
    assert python_worker.sentence(ValueError("Input X contains NaN.\nLong advice")) == "Input X contains NaN."
    assert python_worker.sentence(KeyError("column")) == "KeyError: 'column'"
    assert python_worker.sentence(RuntimeError()) == "RuntimeError: no message"


def test_the_zeros_of_a_signature_have_one_row() -> None:
    specs = (TensorSpec(name="a", datatype="FP32", shape=(-1, 3)), TensorSpec(name="b", datatype="BYTES", shape=(-1,)))
    found = zeros(specs)
    assert found["a"].shape == (1, 3)
    assert found["a"].dtype == np.dtype(np.float32)
    assert found["b"].tolist() == [b""]
