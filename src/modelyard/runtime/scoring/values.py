"""Arrow columns of any type as values that JSON has."""

from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_FLAT = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_temporal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)


def check_texts(schema: pa.Schema) -> None:
    """Raise ValueError where names or time zones are no text: Arrow takes any bytes, and Python meets them later."""
    kinds: list[pa.DataType] = [kind for _, kind in zip(schema.names, schema.types, strict=True)]
    while kinds:
        kind = kinds.pop()
        if pa.types.is_struct(kind) or pa.types.is_union(kind):
            fields = [kind.field(number) for number in range(kind.num_fields)]
            kinds += [each.type for each in fields if each.name is not None]
        elif isinstance(kind, pa.BaseExtensionType):
            kinds.append(kind.storage_type)
        elif hasattr(kind, "value_type"):
            kinds.append(kind.value_type)
        elif pa.types.is_map(kind):
            kinds += [kind.key_type, kind.item_type]
        elif pa.types.is_timestamp(kind):
            len(kind.tz or "")


def has_values(kind: pa.DataType) -> bool:
    """Whether `json_values` knows the type: no unions, intervals, views, maps, extensions or run-end encoding."""
    if is_list(kind):
        return has_values(kind.value_type)
    if pa.types.is_dictionary(kind):
        return any(known(kind.value_type) for known in _FLAT)
    if pa.types.is_struct(kind):
        return all(has_values(each.type) for each in kind)
    return not pa.types.is_interval(kind) and any(known(kind) for known in _FLAT)


def json_values(array: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Bytes become text, times ISO 8601, decimals text, NaN and infinite numbers null.

    Types that `has_values` does not know are as Python has them, if it does: Arrow's errors are raised.
    """
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    return [value for each in chunks for value in _values(each)]


def is_list(kind: pa.DataType) -> bool:
    """Of any of the three layouts."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _values(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if is_list(kind):
        return _lists(array)
    if pa.types.is_struct(kind):
        return _structs(array)
    if isinstance(array, pa.ExtensionArray):
        return _values(array.storage)
    return _flat(array)


def _flat(array: pa.Array) -> list[Any]:
    kind = array.type
    if pa.types.is_temporal(kind):
        return _times(array)
    if pa.types.is_floating(kind):
        found = array.cast(pa.float32()) if pa.types.is_float16(kind) else array
        array = pc.if_else(pc.is_finite(found), found, pa.scalar(None, found.type))
    values: list[Any] = array.to_pylist()
    if pa.types.is_decimal(kind):
        return [None if each is None else str(each) for each in values]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return [None if each is None else each.decode("utf-8", "replace") for each in values]
    return values


def _structs(array: pa.Array) -> list[Any]:
    children = [_values(array.field(number)) for number in range(array.type.num_fields)]
    names = [each.name for each in array.type]
    rows = zip(*children, strict=True) if children else iter([()] * len(array))
    return _with_nulls(array, [dict(zip(names, row, strict=True)) for row in rows])


def _lists(array: pa.Array) -> list[Any]:
    """Row by row: what null rows of a fixed-size list hold is no value."""
    inner = _values(array.values)
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        starts = range(array.offset * size, (array.offset + len(array)) * size, size) if size else [0] * len(array)
        found = [inner[start : start + size] for start in starts]
    else:
        offsets = array.offsets.to_pylist()
        found = [inner[start:stop] for start, stop in pairwise(offsets)]
    return _with_nulls(array, found)


def _with_nulls(array: pa.Array, values: list[Any]) -> list[Any]:
    if not array.null_count:
        return values
    return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def _times(array: pa.Array) -> list[Any]:
    """Not by Python's own types, which know no nanoseconds and fewer years."""
    kind = array.type
    utc = pa.types.is_timestamp(kind) and kind.tz is not None
    plain = array.cast(pa.timestamp(kind.unit)) if utc else array
    texts: list[Any] = plain.cast(pa.string()).to_pylist()
    if not pa.types.is_timestamp(kind):
        return texts
    # What Arrow cannot write as a time it puts in angle brackets.
    zone = "+00:00" if utc else ""
    return [each if each is None or each[0] == "<" else each.replace(" ", "T") + zone for each in texts]
