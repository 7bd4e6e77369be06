"""numpy arrays <-> the JSON of the Open Inference Protocol, version 2, guided by a model's metadata.

Source: https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelyard.base.errors import RetryLater, UserError

Array = NDArray[Any]
DTYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. shape: rows first, -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata:
    """What a model takes and gives."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def encode(metadata: Metadata, inputs: Mapping[str, ArrayLike]) -> bytes:
    """The body of an inference request. Raises UserError that names the input and what was expected."""
    known = {each.name: each for each in metadata.inputs}
    unknown = [name for name in inputs if name not in known]
    if unknown:
        raise UserError(f"model {metadata.name} has no input {', '.join(unknown)}; its inputs are {', '.join(known)}")
    tensors = []
    for name, values in inputs.items():
        array = to_array(known[name], values)
        data = array.ravel().tolist()
        tensors.append({"name": name, "shape": list(array.shape), "datatype": known[name].datatype, "data": data})
    try:
        return msgspec.json.encode({"inputs": tensors})
    except (UnicodeEncodeError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"model {metadata.name}: text must be valid UTF-8: {error}") from error


def to_array(tensor: Tensor, values: ArrayLike) -> Array:
    """`values` in the model's element type; refused where that would change more than the precision of floats."""
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise UserError(f"input {tensor.name}: this client does not know the element type {tensor.datatype}")
    try:
        array = np.asarray(values)
        if dtype is np.object_:
            return _texts(np.asarray(values, dtype=object))
        if array.dtype.kind in "US":
            raise ValueError(f"{str(array.ravel()[0])!r} is text")
        if array.dtype.kind not in "biufO":
            raise ValueError(f"{array.dtype} is not a number")
        with np.errstate(over="raise", invalid="ignore"):
            found = array.astype(dtype)
        if np.issubdtype(dtype, np.floating):
            if not np.isfinite(found).all():
                raise ValueError("a value is missing, infinite or not a number, which JSON cannot carry")
        elif not np.array_equal(found.astype(array.dtype), array):
            raise ValueError(f"some values do not fit into {tensor.datatype} unchanged")
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(
            f"input {tensor.name}: expected {tensor.datatype} in the shape {list(tensor.shape)}: {error}"
        ) from error
    return found


def _texts(array: Array) -> Array:
    def text(value: object) -> str:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            return str(value)
        raise ValueError(f"{value!r} is not text")

    found = np.empty(array.shape, dtype=object)
    found.ravel()[:] = [text(value) for value in array.ravel()]
    return found.reshape(array.shape)


def decode(name: str, body: bytes) -> dict[str, Array]:
    """The outputs of an inference answer. Raises RetryLater if the answer is damaged."""
    try:
        outputs = msgspec.json.decode(body)["outputs"]
        return {str(each["name"]): _output(each) for each in outputs}
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise RetryLater(f"model {name} answered with something that is no inference response: {error}") from error


def _output(output: Mapping[str, Any]) -> Array:
    dtype = DTYPES[output["datatype"]]
    data = output["data"]
    if np.issubdtype(dtype, np.floating):
        data = [np.nan if value is None else value for value in _flat(data)]  # JSON has no NaN: null stands for it
    shape = tuple(int(size) for size in output["shape"])
    if dtype is np.object_:
        found = np.empty(len(flat := _flat(data)), dtype=object)
        found[:] = flat
        return found.reshape(shape)
    return np.asarray(data, dtype=dtype).reshape(shape)


def _flat(data: Sequence[Any]) -> list[Any]:
    """The specification allows nested lists as well."""
    found = list(data)
    while found and isinstance(found[0], list):
        found = [value for row in found for value in row]
    return found


def metadata(name: str, body: bytes) -> Metadata:
    """What `GET /v2/models/<name>` answers. Raises RetryLater if the answer is damaged."""
    try:
        found = msgspec.json.decode(body)
        return Metadata(name=name, inputs=_tensors(found.get("inputs")), outputs=_tensors(found.get("outputs")))
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RetryLater(f"model {name} answered with something that is no model metadata: {error}") from error


def _tensors(items: Sequence[Mapping[str, Any]] | None) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(str(each["name"]), str(each["datatype"]), tuple(int(size) for size in each["shape"]))
        for each in items or ()
    )
