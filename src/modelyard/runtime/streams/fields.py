"""Values of JSON as columns for the model: exactly the types of its signature, nothing is guessed or rounded away.

All records at once where all are well; where one is not, halves find it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modelyard.runtime.worker.tensors import DTYPES
from modelyard.wire.work import TensorSpec

_WORDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
_SHOWN = 40


class _Odd(Exception):
    """Some value is not what the signature asks for."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record has no input. code: as of `RowError`."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Sorted:
    """arrays: one for each input, of the records at the places `good`, in order; bad: the other places."""

    arrays: tuple[pa.Array, ...]
    good: tuple[int, ...]
    bad: dict[int, Problem]


class Fields:
    """What is taken of records. columns: fields that make up the rows of the only input, () to take each by name."""

    def __init__(self, inputs: Sequence[TensorSpec], columns: Sequence[str]) -> None:
        self._inputs = tuple(inputs)
        self._columns = tuple(columns)
        self.names = self._columns or tuple(each.name for each in inputs)
        self._get: Callable[[Any], Any] = itemgetter(*self.names)
        self._side_by_side = len(self._columns) > 1
        spec = self._inputs[0]
        several = not columns and len(self._inputs) == 1 and len(spec.shape) == 2 and spec.shape[1] != 1
        self.hint = f"; list the fields that make up a row of {spec.name} in spec.source.columns" if several else ""
        """What may help where one is missing."""

    def sort_out(self, records: Sequence[Any]) -> Sorted:
        """Records that are objects with the right values, and all others. Never raises for what is in them."""
        pieces: list[tuple[pa.Array, ...]] = []
        good: list[int] = []
        bad: dict[int, Problem] = {}
        self._halve(records, 0, pieces, good, bad)
        if not pieces:
            return Sorted(tuple(pa.array([], column_type(spec)) for spec in self._inputs), (), bad)
        if len(pieces) == 1:
            return Sorted(pieces[0], tuple(good), bad)
        arrays = tuple(pa.concat_arrays(list(each)) for each in zip(*pieces, strict=True))
        return Sorted(arrays, tuple(good), bad)

    def _halve(
        self,
        records: Sequence[Any],
        first: int,
        pieces: list[tuple[pa.Array, ...]],
        good: list[int],
        bad: dict[int, Problem],
    ) -> None:
        if not records:
            return
        try:
            pieces.append(self._arrays(records))
            good.extend(range(first, first + len(records)))
            return
        except _Odd:
            if len(records) == 1:
                bad[first] = self._problem(records[0])
                return
        middle = len(records) // 2
        self._halve(records[:middle], first, pieces, good, bad)
        self._halve(records[middle:], first + middle, pieces, good, bad)

    def _arrays(self, records: Sequence[Any]) -> tuple[pa.Array, ...]:
        try:
            found = list(map(self._get, records))
        except (KeyError, TypeError):  # a field is missing; a record is no object
            raise _Odd from None
        if self._side_by_side:
            flat = _leaf(list(chain.from_iterable(found)), self._inputs[0].datatype)
            offsets = np.arange(len(records) + 1, dtype=np.int32) * len(self.names)
            return (pa.ListArray.from_arrays(pa.array(offsets), flat),)
        if len(self.names) == 1:
            return (_column(found, self._inputs[0]),)
        return tuple(_column(values, spec) for values, spec in zip(zip(*found, strict=True), self._inputs, strict=True))

    def _problem(self, record: Any) -> Problem:
        """What is the matter with a record of which no columns could be made."""
        if not isinstance(record, dict):
            return Problem("WrongType", f"the record is {_word(record)}, not an object")
        for number, name in enumerate(self.names):
            spec = self._inputs[0] if self._columns else self._inputs[number]
            if name not in record:
                return Problem("MissingField", f"there is no field {name}{self.hint}")
            problem = _explained(name, record[name], spec, scalar=self._side_by_side)
            if problem is not None:
                return problem
        return Problem("WrongType", "the record does not fit the model's signature")


def column_type(spec: TensorSpec) -> pa.DataType:
    """Of the column that becomes an input: lists as deep as its rows. Text is binary."""
    kind = pa.binary() if spec.datatype == "BYTES" else pa.from_numpy_dtype(DTYPES[spec.datatype])
    for _ in range(_depth(spec)):
        kind = pa.list_(kind)
    return kind


def _depth(spec: TensorSpec) -> int:
    return 0 if spec.shape[1:] == (1,) else max(0, len(spec.shape) - 1)


def _column(values: Sequence[Any], spec: TensorSpec) -> pa.Array:
    """Raises _Odd. Lists may have any length here: who compares them with the signature is the mapping."""
    if spec.shape[1:] == (1,) and list in set(map(type, values)):
        values = [each[0] if type(each) is list and len(each) == 1 else each for each in values]
    offsets: list[NDArray[np.int32]] = []
    for _ in range(_depth(spec)):
        if set(map(type, values)) - {list}:
            raise _Odd
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        offsets.append(np.concatenate(([0], ends)).astype(np.int32))
        values = list(chain.from_iterable(values))
    found = _leaf(values, spec.datatype)
    for each in reversed(offsets):
        found = pa.ListArray.from_arrays(pa.array(each), found)
    return found


def _leaf(values: Sequence[Any], datatype: str) -> pa.Array:
    """Single values as an Arrow array of the datatype. Raises _Odd."""
    kinds = set(map(type, values))
    if datatype == "BYTES":
        if kinds - {str}:
            raise _Odd
        return pa.array(values, pa.string()).cast(pa.binary())
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "b":
        if kinds - {bool}:
            raise _Odd
        return pa.array(np.array(values, np.bool_))
    if kinds - {int, float}:
        raise _Odd
    return pa.array(_floats(values, dtype) if dtype.kind == "f" else _whole(values, dtype, kinds))


def _floats(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        found = np.array(values, np.float64)
    except OverflowError:
        raise _Odd from None
    if dtype.itemsize == 8:
        return found
    with np.errstate(over="ignore"):  # looked for in the next line
        narrow = found.astype(dtype)
    if np.isinf(narrow).any():
        raise _Odd
    return narrow


def _whole(values: Sequence[Any], dtype: np.dtype[Any], kinds: set[type]) -> NDArray[Any]:
    if float in kinds:
        if not all(type(each) is int or each.is_integer() for each in values):
            raise _Odd
        values = list(map(int, values))
    try:
        found = np.array(values, np.uint64 if dtype == np.uint64 else np.int64)
    except OverflowError:
        raise _Odd from None
    limits = np.iinfo(dtype)
    if dtype.itemsize < 8 and found.size and (found.min() < limits.min or found.max() > limits.max):
        raise _Odd
    return found.astype(dtype, copy=False)


def _explained(name: str, value: Any, spec: TensorSpec, *, scalar: bool) -> Problem | None:
    """What is the matter with one value, None if nothing is."""
    try:
        _leaf([value], spec.datatype) if scalar else _column([value], spec)
        return None
    except _Odd:
        pass
    if value is None:
        return Problem("NullValue", f"{name} is null")
    depth = 0 if scalar else _depth(spec)
    if depth and not isinstance(value, list):
        return Problem("ShapeMismatch", f"{name} is {_word(value)}, expected lists of the shape {list(spec.shape[1:])}")
    leaves, level = [value], depth
    while level and all(isinstance(each, list) for each in leaves):
        leaves, level = [inner for each in leaves for inner in each], level - 1
    return _odd_leaf(name, leaves, level, spec)


def _odd_leaf(name: str, leaves: Sequence[Any], level: int, spec: TensorSpec) -> Problem:
    what = f"{name} is" if len(leaves) == 1 else f"{name} holds a value that is"
    for each in leaves:
        if each is None:
            return Problem("NullValue", f"{name} holds a null")
        if isinstance(each, list) or level:
            return Problem("ShapeMismatch", f"{name} does not have the shape {list(spec.shape[1:])}")
        try:
            _leaf([each], spec.datatype)
        except _Odd:
            shown = repr(each)[:_SHOWN] if type(each) in (int, float) else _word(each)
            number = type(each) in (int, float) and spec.datatype not in ("BYTES", "BOOL")
            if number and spec.datatype.startswith(("INT", "UINT")) and each % 1:
                return Problem("WrongType", f"{what} {shown}, and {spec.datatype} takes whole numbers")
            if number:
                return Problem("OutOfRange", f"{what} {shown}, which {spec.datatype} cannot hold")
            return Problem("WrongType", f"{what} {shown}, and the model takes {spec.datatype}")
    return Problem("ShapeMismatch", f"{name} does not have the shape {list(spec.shape[1:])}")


def _word(value: Any) -> str:
    return _WORDS.get(type(value), "an object")
