"""numpy arrays as tensors of frames, and back."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.wire import frames
from modelyard.wire.work import TensorSpec

DTYPES = dict(
    zip(
        frames.DATATYPES,
        map(np.dtype, ("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")),
        strict=True,
    )
)


def to_tensor(name: str, datatype: str, array: NDArray[Any]) -> frames.Tensor:
    """An array of the datatype (BYTES: an object array of `bytes`); not copied if it is contiguous."""
    if datatype == "BYTES":
        return frames.Tensor(name, datatype, array.shape, frames.join(array.ravel().tolist()))
    data = np.ascontiguousarray(array, DTYPES[datatype])
    return frames.Tensor(name, datatype, array.shape, data.reshape(-1).view(np.uint8).data)


def from_tensor(tensor: frames.Tensor) -> NDArray[Any]:
    """A read-only view of the frame's bytes; BYTES become an object array of `bytes`."""
    if tensor.datatype != "BYTES":
        return np.frombuffer(tensor.data, DTYPES[tensor.datatype]).reshape(tensor.shape)
    found: NDArray[Any] = np.empty(int(np.prod(tensor.shape)), object)
    found[:] = frames.split(tensor.data, found.size, tensor.name)
    return found.reshape(tensor.shape)


def zeros(specs: Iterable[TensorSpec]) -> dict[str, NDArray[Any]]:
    """One row of zeros, or of empty BYTES, for each; sizes that are open become 1."""
    found: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        text = spec.datatype == "BYTES"
        found[spec.name] = np.full(shape, b"", object) if text else np.zeros(shape, DTYPES[spec.datatype])
    return found
