import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.runtime.backends.port import LoadFailed, Tensors
from modelyard.runtime.front.models import HostedModel, host
from modelyard.wire.work import ModelWork, ServeWork, TensorSpec

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 2))


class Function:
    """A backend that is one function of one array."""

    inputs = (X,)
    outputs: tuple[TensorSpec, ...] = (Y,)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    async def infer(self, inputs: Tensors) -> Tensors:
        return {"y": np.asarray(self._function(inputs["x"]), np.float32)}

    async def close(self) -> None: ...


async def hosted(function: Callable[[Any], Any], **declared: Any) -> HostedModel:
    work = ModelWork(name="m", digest="", format="onnx", **declared)
    return await host(work, Function(function), ServeWork(models=(work,)))


def refuse(_: Any) -> Any:
    raise UserError("no zeros please")


async def test_a_model_that_fails_its_first_inference_is_not_hosted() -> None:
    with pytest.raises(LoadFailed, match="the first inference of m, with zeros, failed: no zeros please") as caught:
        await hosted(refuse)
    assert caught.value.reason == Reason.WARMUP_FAILED


async def test_a_model_that_leaves_out_an_output_is_not_hosted() -> None:
    class Silent(Function):
        outputs = (Y, TensorSpec(name="z", datatype="FP32", shape=(-1,)))

    work = ModelWork(name="m", digest="", format="onnx")
    with pytest.raises(LoadFailed, match="m answers no output 'z'; it answers 'y'") as caught:
        await host(work, Silent(lambda x: x), ServeWork(models=(work,)))
    assert caught.value.reason == Reason.SIGNATURE_MISMATCH


async def test_a_declared_signature_is_used_and_must_agree_with_the_models_own() -> None:
    narrower = TensorSpec(name="x", datatype="FP32", shape=(-1, 1))
    model = await hosted(lambda x: x, inputs=(narrower,))
    assert model.signature.inputs == (narrower,)
    with pytest.raises(LoadFailed, match=r"declared inputs are q \(FP32 \[-1, 2\]\), and the model has x") as caught:
        await hosted(lambda x: x, inputs=(TensorSpec(name="q", datatype="FP32", shape=(-1, 2)),))
    assert caught.value.reason == Reason.SIGNATURE_MISMATCH


async def test_a_datatype_that_the_protocol_does_not_know_is_told() -> None:
    with pytest.raises(LoadFailed, match="input 'x' has the unknown datatype 'FP8'; expected BOOL, UINT8"):
        await hosted(lambda x: x, inputs=(TensorSpec(name="x", datatype="FP8", shape=(-1, 2)),))


def no_nan(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def quiet(x: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(x)

    return quiet


@pytest.mark.parametrize(
    ("function", "independent"),
    [
        (lambda x: x * 2, True),
        (no_nan(lambda x: x / x), True),  # NaN for zeros, alone and in company
        (lambda x: x - x.mean(axis=0), False),
        (lambda x: np.exp(x) / np.exp(x).sum(axis=0), False),
        (lambda x: x.sum(axis=0, keepdims=True), False),
        (lambda x: x[:1], False),
    ],
)
async def test_only_models_whose_rows_are_independent_are_batched(
    function: Callable[[Any], Any], independent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await hosted(function)
    assert ("requests are not batched" in caplog.text) is not independent
