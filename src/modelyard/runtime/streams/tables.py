"""Kept fields and outputs as tables for files: types from the values at hand, as steady over time as values allow.

A part of the output is one file, and readers take the columns of the first one they find for those of all. So a type,
once chosen, is used for as long as values fit it; then whole numbers become doubles, and everything else text.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from modelyard.runtime.scoring.values import json_values

_INT64 = (-(2**63), 2**63 - 1)
_EXACT = 2**53
"""Whole numbers up to here are doubles without a loss."""


def column(values: Sequence[Any]) -> pa.Array:
    """Values of JSON. Objects, lists and values of several types become text: what is no text yet as JSON."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(each is None or _INT64[0] <= each <= _INT64[1] for each in values):
        return pa.array(values, pa.int64())
    if float in kinds and kinds <= {int, float} and all(_is_exact(each) for each in values):
        return pa.array([None if each is None else float(each) for each in values], pa.float64())
    return pa.array([_text(each) for each in values], pa.string())


def united(tables: Sequence[pa.Table], before: pa.Schema | None) -> pa.Table:
    """One table of several with the same columns, in the types of `before` where all values fit them.

    tables: at least one. before: of the partition's last file, with other columns if the stream was changed since.
    """
    names = list(dict.fromkeys(name for each in tables for name in each.column_names))
    arrays = [_column(name, tables, before) for name in names]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _column(name: str, tables: Sequence[pa.Table], before: pa.Schema | None) -> pa.ChunkedArray:
    pieces = [
        each.column(name) if name in each.column_names else pa.chunked_array([pa.nulls(each.num_rows)])
        for each in tables
    ]
    known = before.field(name).type if before is not None and name in before.names else None
    kinds = {each.type for each in pieces if not pa.types.is_null(each.type)}
    for kind in _candidates(known, kinds):
        found = [_cast(each, kind) for each in pieces]
        good = [each for each in found if each is not None]
        if len(good) == len(pieces):
            return pa.chunked_array([chunk for each in good for chunk in each.chunks], kind)
    texts = [texts_of(each) for each in pieces]
    return pa.chunked_array([chunk for each in texts for chunk in each.chunks], pa.string())


def _candidates(known: pa.DataType | None, kinds: set[pa.DataType]) -> Iterable[pa.DataType]:
    """Types to try, one after the other."""
    if known is not None and not pa.types.is_null(known):
        yield known
    if len(kinds) == 1:
        yield next(iter(kinds))
    if kinds and all(pa.types.is_integer(each) for each in kinds):
        yield pa.int64()
    if kinds and all(pa.types.is_integer(each) or pa.types.is_floating(each) for each in kinds):
        yield pa.float64()


def _cast(array: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    """In that type without any loss, None if that cannot be."""
    if array.type == kind:
        return array
    if not len(array):
        return pa.chunked_array([], kind)
    if pa.types.is_string(kind):
        return texts_of(array)
    numbers = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    if not (pa.types.is_null(array.type) or (numbers and (pa.types.is_integer(kind) or pa.types.is_floating(kind)))):
        return None
    try:
        found = array.cast(kind)
        back = found.cast(array.type)
    except pa.ArrowException:
        return None
    return found if back.equals(array) else None


def holds(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether a column of that type takes every value of the other one as it is."""
    if kind == other or pa.types.is_string(kind):
        return True
    if pa.types.is_floating(kind) and pa.types.is_floating(other):
        return bool(kind.bit_width >= other.bit_width)
    if not pa.types.is_integer(other):
        return False
    if pa.types.is_floating(kind):
        exact = {16: 11, 32: 24, 64: 53}[kind.bit_width]
        return bool(exact >= other.bit_width)
    if not pa.types.is_integer(kind):
        return False
    signed, other_signed = pa.types.is_signed_integer(kind), pa.types.is_signed_integer(other)
    return bool(kind.bit_width >= other.bit_width + (signed and not other_signed)) and signed >= other_signed


def texts_of(array: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as it is, all else as JSON."""
    if pa.types.is_string(array.type):
        return array
    if pa.types.is_null(array.type) or pa.types.is_large_string(array.type):
        return array.cast(pa.string())
    texts = [_text(each) for each in json_values(array)]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _is_exact(value: Any) -> bool:
    return value is None or type(value) is float or abs(value) <= _EXACT


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
