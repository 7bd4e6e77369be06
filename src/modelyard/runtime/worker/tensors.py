"""numpy arrays as tensors of frames, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.wire import frames

_DTYPES = dict(
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
    data = np.ascontiguousarray(array, _DTYPES[datatype])
    return frames.Tensor(name, datatype, array.shape, data.reshape(-1).view(np.uint8).data)


def from_tensor(tensor: frames.Tensor) -> NDArray[Any]:
    """A read-only view of the frame's bytes; BYTES become an object array of `bytes`."""
    if tensor.datatype != "BYTES":
        return np.frombuffer(tensor.data, _DTYPES[tensor.datatype]).reshape(tensor.shape)
    found: NDArray[Any] = np.empty(int(np.prod(tensor.shape)), object)
    found[:] = frames.split(tensor.data, found.size, tensor.name)
    return found.reshape(tensor.shape)
