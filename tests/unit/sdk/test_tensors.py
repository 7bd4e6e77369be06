import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import RetryLater, UserError
from modelyard.sdk import tensors
from modelyard.sdk.tensors import Metadata, Tensor

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["outputs", "inputs", "name", "shape", "datatype", "data"]), inner, max_size=6
        )
    ),
)


def metadata(*inputs: Tensor) -> Metadata:
    return Metadata(name="m", inputs=inputs, outputs=())


def echoed(tensor: Tensor, values: Any) -> Any:
    """Encoded as a request, and decoded as if it were the answer."""
    body = json.loads(tensors.encode(metadata(tensor), {tensor.name: values}))
    return tensors.decode("m", json.dumps({"outputs": body["inputs"]}).encode())[tensor.name]


@pytest.mark.parametrize("datatype", [each for each in tensors.DTYPES if each != "BYTES"])
def test_numbers_go_over_the_wire_unchanged(datatype: str) -> None:
    dtype = tensors.DTYPES[datatype]
    values = np.array([[0, 1], [1, 0]]).astype(dtype)
    found = echoed(Tensor("x", datatype, (-1, 2)), values)
    assert found.dtype == dtype
    assert (found == values).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5))
def test_floats_come_back_unchanged(values: list[float]) -> None:
    assert list(echoed(Tensor("x", "FP32", (-1,)), np.array(values, np.float32))) == values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, 1e300])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match="input x: expected FP32"):
        tensors.to_array(Tensor("x", "FP32", (-1,)), [value])


def test_a_null_in_an_answer_is_not_a_number() -> None:
    body = b'{"outputs":[{"name":"y","datatype":"FP64","shape":[2],"data":[1.5,null]}]}'
    assert np.array_equal(tensors.decode("m", body)["y"], np.array([1.5, np.nan]), equal_nan=True)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=4))
def test_text_goes_over_the_wire_unchanged(values: list[str]) -> None:
    assert list(echoed(Tensor("x", "BYTES", (-1,)), values)) == values


def test_integers_are_never_rounded_and_never_wrap() -> None:
    tensor = Tensor("x", "INT8", (-1,))
    assert list(tensors.to_array(tensor, [1.0, -2.0])) == [1, -2]
    for values in ([1.5], [300], [float("nan")]):
        with pytest.raises(UserError, match="input x: expected INT8"):
            tensors.to_array(tensor, values)


@pytest.mark.filterwarnings("error")
def test_values_of_another_type_are_refused_naming_the_input() -> None:
    for datatype, values in (("FP32", ["a"]), ("BYTES", [1]), ("BOOL", [2]), ("FP64", [[1], [1, 2]])):
        with pytest.raises(UserError, match="input x"):
            tensors.to_array(Tensor("x", datatype, (-1,)), values)


def test_an_unknown_input_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="model m has no input y; its inputs are x"):
        tensors.encode(metadata(Tensor("x", "FP32", (-1,))), {"y": [1]})


@given(json_values)
def test_damaged_answers_are_an_error_of_ours(value: Any) -> None:
    body = json.dumps(value).encode()
    for read in (tensors.decode, tensors.metadata):
        with contextlib.suppress(RetryLater):
            read("m", body)


@given(st.binary(max_size=40))
def test_answers_that_are_not_json_are_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(RetryLater):
        tensors.decode("m", body)
