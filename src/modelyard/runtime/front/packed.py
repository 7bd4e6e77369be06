"""Between the bytes of gRPC messages and arrays: raw tensors, and protobuf's packed lists.

Raw is little-endian and row-major; a BYTES element has its length before it, four bytes. A list in `contents` is packed
varints, or 4 or 8 bytes an element; INT8 to INT32 travel as int32, UINT8 to UINT32 as uint32.
Source: Open Inference Protocol V2, gRPC ("Tensor data"); protobuf.dev, "Encoding".
"""

import math
from typing import Any

import numpy as np

from modelyard.base.errors import UserError
from modelyard.runtime.backends.port import Array
from modelyard.runtime.front.tensors import DTYPES
from modelyard.wire import oip_grpc

_MOST_BYTES = 10  # of a varint of 64 bits
_AT_ONE_GO = 2**17  # bytes or elements: what is made on the way takes many times their memory


def raw_elements(position: int, tensor: oip_grpc.RequestInput) -> Array:
    """The elements of an input, flat, from raw_input_contents. Raises UserError naming the field."""
    field, data = f"raw_input_contents[{position}]", tensor.data
    assert not isinstance(data, list)
    count = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        return _objects(_lengthened(field, bytes(data), count, tensor))
    dtype = DTYPES[tensor.datatype]
    if len(data) != count * dtype.itemsize:
        raise UserError(
            f"{field}: has {len(data)} bytes, but {tensor.datatype} of the shape {tensor.shape} has "
            f"{count * dtype.itemsize}"
        )
    if tensor.datatype == "BOOL":
        return np.not_equal(np.frombuffer(data, np.uint8), 0)
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)  # a copy, at an address that suits the type


def contents_elements(position: int, tensor: oip_grpc.RequestInput) -> Array:
    """The elements of an input, flat, from its contents. Raises UserError naming the field."""
    field, data = f"inputs[{position}].contents", tensor.data
    kind, name = oip_grpc.CONTENTS.get(tensor.datatype, (0, ""))
    if not kind:
        raise UserError(f"{field}: {tensor.datatype} has no contents; send it in raw_input_contents")
    if not tensor.kind:
        raise UserError(f"{field}: is missing; {tensor.datatype} goes into {name}, or all into raw_input_contents")
    if tensor.kind != kind:
        raise UserError(f"{field}: {tensor.datatype} goes into {name}, and not into another list")
    field = f"{field}.{name}"
    if isinstance(data, list):
        array = _objects(data)
    elif tensor.datatype in ("FP32", "FP64"):
        dtype = DTYPES[tensor.datatype]
        if len(data) % dtype.itemsize:
            raise UserError(f"{field}: has {len(data)} bytes, which is not a multiple of {dtype.itemsize}")
        array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)
    else:
        array = _integers(field, data, tensor)
    if len(array) != (count := math.prod(tensor.shape)):
        raise UserError(f"{field}: has {len(array)} elements, but the shape {tensor.shape} says {count}")
    return array


def raw_bytes(array: Array) -> bytes:
    """An output as raw_output_contents has it."""
    if array.dtype == object:
        return b"".join([len(each).to_bytes(4, "little") + each for each in array.ravel()])
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def contents(array: Array) -> bytes | list[bytes]:
    """An output as InferTensorContents has it, packed."""
    if array.dtype == object:
        return list(array.ravel())
    if array.dtype.kind == "f":
        return raw_bytes(array)
    flat = array.ravel()
    return b"".join([_packed(flat[start : start + _AT_ONE_GO]) for start in range(0, len(flat), _AT_ONE_GO)])


def _packed(values: Array) -> bytes:
    """Integers or bools, flat, as a packed list of varints; negative ones take ten bytes."""
    values = values.astype(np.uint64) if values.dtype.kind in "bu" else values.astype(np.int64).view(np.uint64)
    if values.max() < 0x80:
        return values.astype(np.uint8).tobytes()
    lengths = np.ones(len(values), np.int64)
    for byte in range(1, _MOST_BYTES):
        lengths += values >= np.uint64(1 << (7 * byte))
    starts = np.cumsum(lengths) - lengths
    out = np.empty(int(lengths.sum()), np.uint8)
    for byte in range(int(lengths.max())):
        has = lengths > byte
        low = (values[has] >> np.uint64(7 * byte)).astype(np.uint8) & np.uint8(0x7F)
        out[starts[has] + byte] = low | np.where(lengths[has] > byte + 1, np.uint8(0x80), np.uint8(0))
    return out.tobytes()


def _integers(field: str, data: bytes | memoryview, tensor: oip_grpc.RequestInput) -> Array:
    """Integers or bools from a packed list of varints, as many as the shape says."""
    found = np.frombuffer(data, np.uint8)
    count = int(np.count_nonzero(found < 0x80))
    if len(found) and found[-1] >= 0x80:
        raise UserError(f"{field}: is cut off in its last element")
    if count != math.prod(tensor.shape):
        raise UserError(f"{field}: has {count} elements, but the shape {tensor.shape} says {math.prod(tensor.shape)}")
    out = np.empty(count, DTYPES[tensor.datatype])
    done = start = 0
    while start < len(found):
        stop = min(start + _AT_ONE_GO, len(found))
        stop += int(np.argmax(found[stop - 1 : stop + _MOST_BYTES] < 0x80))  # to the end of an element
        values = _varints(field, found[start:stop])
        out[done : done + len(values)] = _narrowed(field, done, values, tensor.datatype)
        done, start = done + len(values), stop
    return out


def _varints(field: str, found: np.ndarray[Any, np.dtype[np.uint8]]) -> Array:
    ends = np.flatnonzero(found < 0x80)
    if found[-1] >= 0x80:
        raise UserError(f"{field}: an integer has more than ten bytes")
    if len(ends) == len(found):
        return found.astype(np.uint64)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _MOST_BYTES:
        raise UserError(f"{field}: an integer has more than ten bytes")
    values = np.zeros(len(ends), np.uint64)
    for byte in range(longest):
        has = lengths > byte
        values[has] |= (found[starts[has] + byte] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * byte)
    return values


def _narrowed(field: str, position: int, values: Array, datatype: str) -> Array:
    """As protobuf reads an int32 or a uint32, and then within the datatype."""
    dtype = DTYPES[datatype]
    if datatype == "BOOL":
        return np.not_equal(values, 0)
    if datatype == "UINT64":
        return values
    if datatype == "INT64":
        return values.view(np.int64)
    wide = values.astype(np.uint32)
    if dtype.kind == "i":
        wide = wide.view(np.int32)
    narrow = wide.astype(dtype)
    if dtype.itemsize < 4 and not np.array_equal(narrow, wide):
        first = int(np.flatnonzero(narrow != wide)[0])
        raise UserError(f"{field}[{position + first}]: {wide[first]} is not {datatype}")
    return narrow


def _lengthened(field: str, data: bytes, count: int, tensor: oip_grpc.RequestInput) -> list[bytes]:
    """Elements with their lengths before them."""
    found: list[bytes] = []
    position, end = 0, len(data)
    if count > oip_grpc.MAX_STRINGS:
        raise UserError(f"{field}: has more than {oip_grpc.MAX_STRINGS} elements; send fewer rows")
    while position < end:
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        if position > end or start > end:
            raise UserError(f"{field}: is cut off in element {len(found)}; each is its length, 4 bytes, and its bytes")
        found.append(data[start:position])
        if len(found) > count:
            break
    if len(found) != count:
        raise UserError(f"{field}: has {len(found)} elements or more, but the shape {tensor.shape} says {count}")
    return found


def _objects(elements: list[bytes]) -> Array:
    array: Array = np.empty(len(elements), object)
    array[:] = elements
    return array
