from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.base.errors import UserError
from modelyard.runtime.front import tensors
from modelyard.runtime.front.tensors import DTYPES, Signature
from modelyard.wire import oip
from modelyard.wire.work import TensorSpec


def spec(name: str, datatype: str = "FP32", *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape or (-1, 2))


def request(*inputs: dict[str, Any]) -> oip.InferRequest:
    return oip.decode_request(msgspec.json.encode({"inputs": inputs}))


def sent(
    name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 2), data: Any = (1, 2)
) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def refused(signature: Signature, *inputs: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        signature.read(request(*inputs))
    return caught.value.message


def test_inputs_arrive_in_the_models_own_datatype_and_shape() -> None:
    found = Signature([spec("x")], [spec("y")]).read(request(sent(shape=(2, 2), data=[1, 2, 3, 4])))
    assert found["x"].dtype == np.float32
    assert found["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("taken", "accepted"),
    [
        ("BOOL", {"BOOL"}),
        ("BYTES", {"BYTES"}),
        ("UINT8", {"UINT8"}),
        ("INT16", {"INT8", "INT16", "UINT8"}),
        ("INT64", {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32"}),
        ("UINT64", {"UINT8", "UINT16", "UINT32", "UINT64"}),
        ("FP16", {"FP16", "INT8", "UINT8"}),
        ("FP32", {"FP16", "FP32", "INT8", "INT16", "UINT8", "UINT16"}),
        ("FP64", {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32"}),
    ],
)
def test_only_datatypes_that_lose_nothing_are_widened(taken: str, accepted: set[str]) -> None:
    signature = Signature([spec("x", taken)], [])
    for datatype in DTYPES:
        data = {"BOOL": [True, False], "BYTES": ["a", "b"]}.get(datatype, [1, 2])
        if datatype in accepted:
            found = signature.read(request(sent(datatype=datatype, data=data)))["x"]
            assert found.dtype == DTYPES[taken]
        else:
            message = refused(signature, sent(datatype=datatype, data=data))
            assert message.startswith(f"inputs[0].datatype: '{datatype}' cannot be sent to 'x', which takes {taken}; ")


def test_a_number_sent_as_fp32_has_the_precision_of_fp32_in_an_fp64_input() -> None:
    found = Signature([spec("x", "FP64")], []).read(request(sent(data=[0.1, 0.5])))["x"]
    assert found.tolist() == [[float(np.float32(0.1)), 0.5]]


def test_text_arrives_as_utf8_bytes() -> None:
    found = Signature([spec("x", "BYTES")], []).read(request(sent(datatype="BYTES", data=["é", ""])))["x"]
    assert found.dtype == object
    assert found.tolist() == [["é".encode(), b""]]


def test_names_that_are_unknown_missing_or_twice_are_refused() -> None:
    signature = Signature([spec("a"), spec("b")], [])
    assert refused(signature, sent("c")) == "inputs[0].name: the model has no input 'c'; it takes 'a', 'b'"
    assert refused(signature, sent("a"), sent("a")) == "inputs[1].name: 'a' is there twice"
    assert refused(signature, sent("b")) == "inputs: 'a' is missing; the model takes 'a', 'b'"


@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 2, 1)])
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    message = refused(Signature([spec("x")], []), sent(shape=shape, data=[1] * int(np.prod(shape))))
    assert message == f"inputs[0].shape: {list(shape)} does not fit 'x', which takes [-1, 2] (-1: any size)"


def test_inputs_with_different_numbers_of_rows_are_refused() -> None:
    signature = Signature([spec("a"), spec("b")], [spec("y")])
    message = refused(signature, sent("a"), sent("b", shape=(2, 2), data=[1] * 4))
    assert message == "inputs[1].shape: has 2 rows, but inputs[0] has 1"


def test_rows_are_counted_only_where_the_first_dimension_is_free() -> None:
    signature = Signature([spec("a"), spec("b", "FP32", 3)], [spec("y")])
    assert not signature.batchable
    found = signature.read(request(sent("a"), sent("b", shape=(3,), data=[1, 2, 3])))
    assert found["b"].tolist() == [1, 2, 3]


def test_a_fixed_output_makes_a_model_unbatchable() -> None:
    assert Signature([spec("x")], [spec("y")]).batchable
    assert not Signature([spec("x")], [spec("y", "FP32", 1, 3)]).batchable
    assert not Signature([spec("x", "FP32", 1, 3)], [spec("y")]).batchable


def test_requests_are_grouped_by_the_sizes_of_their_rows() -> None:
    free = Signature([spec("x", "FP32", -1, -1)], [])
    assert free.group({"x": np.zeros((1, 2))}) == free.group({"x": np.zeros((5, 2))})
    assert free.group({"x": np.zeros((1, 2))}) != free.group({"x": np.zeros((1, 3))})


def test_outputs_can_be_chosen_and_unknown_ones_are_refused() -> None:
    signature = Signature([spec("x")], [spec("y"), spec("z")])
    answers = {"y": np.zeros((1, 2), np.float32), "z": np.array([[True]])}
    assert [output.name for output in tensors.answer(answers, signature.select(None))] == ["y", "z"]
    chosen = signature.select([oip.RequestedOutput(name="z")])
    assert [output.name for output in tensors.answer(answers, chosen)] == ["z"]
    for names, message in (
        (["y", "q"], "outputs[1].name: the model has no output 'q'; it gives 'y', 'z'"),
        (["y", "y"], "outputs[1].name: 'y' is there twice"),
    ):
        with pytest.raises(UserError) as caught:
            signature.select([oip.RequestedOutput(name=name) for name in names])
        assert caught.value.message == message


def test_answers_keep_shape_and_datatype() -> None:
    for datatype, dtype in DTYPES.items():
        array = np.array([[b"a", b"b"]], object) if datatype == "BYTES" else np.ones((1, 2), dtype)
        (output,) = tensors.answer({"y": array}, ())
        assert (output.datatype, tuple(output.shape), len(output.data)) == (datatype, (1, 2), 2)


def test_what_json_cannot_carry_is_told() -> None:
    for array in (np.array([b"\xff"], object), np.array([1j])):
        with pytest.raises(UserError, match="output 'y'"):
            tensors.answer({"y": array}, ())


def test_zeros_fit_the_signature() -> None:
    signature = Signature([spec("a", "FP16", -1, 3, -1), spec("b", "BYTES", -1)], [spec("y")])
    zeros = signature.zeros(2)
    assert zeros["a"].shape == (2, 3, 1)
    assert zeros["a"].dtype == np.dtype(np.float16)
    assert zeros["b"].tolist() == [b"", b""]
