"""Values: Arrow columns as arrays for a model, and its arrays as Arrow columns. Vectorized for all rows that are
well."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import Array
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.worker.tensors import DTYPES
from modelyard.wire.work import TensorSpec

Image: Any
try:
    from PIL import Image
except ImportError:  # pip install modelyard[images]
    Image = None


_BLOCK_ROWS = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Rows that cannot become an input. message: of the row at that place."""

    rows: NDArray[np.bool_]
    code: str
    message: Callable[[int], str]


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary column."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def tensor(spec: TensorSpec, names: Sequence[str], arrays: Sequence[pa.Array]) -> tuple[Array, list[Problem]]:
    """The input, rows first, and the rows that have none; what is there in their place means nothing."""
    arrays = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in arrays]
    if len(arrays) > 1:
        return _matrix(spec, names, arrays)
    (array,), (name,) = arrays, names
    if pa.types.is_binary(array.type) and spec.datatype != "BYTES":
        return _pixels(spec, array)
    problems = _nulls(name, array)
    trailing = spec.shape[1:]
    if _is_nested(array.type):
        values, more = _lists(spec, name, array)
        return values, [*problems, *more]
    values, more = _scalars(spec, name, array)
    return values.reshape(len(array), *(1 for _ in trailing)), [*problems, *more]


def _matrix(spec: TensorSpec, names: Sequence[str], arrays: Sequence[pa.Array]) -> tuple[Array, list[Problem]]:
    """Columns side by side."""
    problems: list[Problem] = []
    texts = spec.datatype == "BYTES"
    found: Array = np.empty((len(arrays[0]), len(arrays)), object if texts else DTYPES[spec.datatype])
    values = []
    for name, array in zip(names, arrays, strict=True):
        column, more = _scalars(spec, name, array, narrow=False)
        values.append(column)
        problems += [*_nulls(name, array), *more]
    # Some rows of all columns at a time stay in the processor's cache.
    with np.errstate(over="ignore"):  # asked for below
        for start in range(0, len(found), _BLOCK_ROWS):
            for number, column in enumerate(values):
                found[start : start + _BLOCK_ROWS, number] = column[start : start + _BLOCK_ROWS]
    for number, name in enumerate(names if found.dtype.kind == "f" and np.isinf(found).any() else ()):
        problems += _too_large(spec, name, values[number], found[:, number])
    return found, problems


def _scalars(spec: TensorSpec, name: str, array: pa.Array, *, narrow: bool = True) -> tuple[Array, list[Problem]]:
    """narrow: in the datatype of the input; else in the column's own where that fits."""
    if spec.datatype == "BYTES":
        filled = pc.fill_null(array.cast(pa.binary()), b"")
        found: Array = np.empty(len(array), object)
        found[:] = filled.to_pylist()
        return found, []
    if array.null_count:
        array = pc.fill_null(array, False if pa.types.is_boolean(array.type) else 0)
    values = array.to_numpy(zero_copy_only=False)
    wanted = np.dtype(DTYPES[spec.datatype])
    if wanted.kind in "iu" and values.dtype.kind in "iu" and not np.can_cast(values.dtype, wanted):
        limits = np.iinfo(wanted)
        bad = (values < limits.min) | (values > limits.max)
        if bad.any():
            told = Problem(
                rows=bad,
                code="OutOfRange",
                message=lambda index: f"{name} is {values[index]}, which {spec.datatype} cannot hold",
            )
            return np.where(bad, 0, values).astype(wanted), [told]
    if not narrow:
        return values, []
    with np.errstate(over="ignore"):
        narrowed = values.astype(wanted, copy=False)
    return narrowed, _too_large(spec, name, values, narrowed)


def _too_large(spec: TensorSpec, name: str, values: Array, narrowed: Array) -> list[Problem]:
    """Finite numbers that became infinite in a shorter type."""
    if narrowed.dtype.kind != "f" or narrowed.dtype == values.dtype:
        return []
    bad = np.isinf(narrowed)
    if values.dtype.kind == "f" and bad.any():
        bad &= np.isfinite(values)
    if not bad.any():
        return []
    message = lambda index: f"{name} is {values[index]}, which {spec.datatype} cannot hold"  # noqa: E731
    return [Problem(rows=bad, code="OutOfRange", message=message)]


def _nulls(name: str, array: pa.Array) -> list[Problem]:
    if not array.null_count:
        return []
    rows = array.is_null().to_numpy(zero_copy_only=False)
    return [Problem(rows=rows, code="NullValue", message=lambda _index: f"{name} is null")]


def sizes(spec: TensorSpec, array: pa.Array) -> Sequence[Any] | None:
    """What tells rows of other sizes apart: a mark for each row; None if all have the same, or are no lists."""
    if pa.types.is_binary(array.type) and spec.datatype != "BYTES":
        found = [_image_size(each) for each in array.to_pylist()]
        return found if len(set(found)) > 1 else None
    if not _is_nested(array.type) or not len(array):
        return None
    inner, uniform = array, True
    while _is_nested(inner.type) and uniform:
        lengths = _lengths(inner)
        uniform = not inner.null_count and bool((lengths == lengths[:1]).all())
        if uniform:
            inner = _flat(inner, int(lengths[0]) if len(lengths) else 0)
    if uniform:
        return None
    if not _is_nested(array.type.value_type):
        return [-1 if each is None else each for each in pc.list_value_length(array).to_pylist()]
    return [_shape(each) for each in array.to_pylist()]


def _image_size(data: bytes | None) -> tuple[int, int] | None:
    """By its head; None for what is no image."""
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return int(image.size[0]), int(image.size[1])
    except Exception:  # Pillow raises whatever the file makes it raise; without Pillow the next one says so
        return None


def _shape(value: Any) -> tuple[int, ...]:
    """By the first element of each level; who looks at all of them is `_row`."""
    found: list[int] = []
    while isinstance(value, list):
        found.append(len(value))
        value = value[0] if value else None
    return tuple(found)


def _lists(spec: TensorSpec, name: str, array: pa.Array) -> tuple[Array, list[Problem]]:
    """A column of lists as a tensor: all rows must have the sizes of the signature, or those of the first one."""
    values, shape = array, []
    for size in spec.shape[1:]:
        if not _is_nested(values.type):
            break
        if values.null_count:
            return _lists_one_by_one(spec, name, array)
        lengths = _lengths(values)
        width = size if size > 0 else int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            return _lists_one_by_one(spec, name, array)
        shape.append(width)
        values = _flat(values, width)
    if values.null_count:
        return _lists_one_by_one(spec, name, array)
    found, problems = _scalars(spec, name, values)
    if problems:
        return _lists_one_by_one(spec, name, array)
    return found.reshape(len(array), *shape), []


def _lists_one_by_one(spec: TensorSpec, name: str, array: pa.Array) -> tuple[Array, list[Problem]]:
    """Where some rows are not as others."""
    texts = spec.datatype == "BYTES"
    rows = [None if each is None else _row(each, texts=texts) for each in array.to_pylist()]
    first = next((row.shape for row in rows if isinstance(row, np.ndarray)), (0,) * (len(spec.shape) - 1))
    wanted = tuple(size if size > 0 else found for size, found in zip(spec.shape[1:], first, strict=False))
    dtype = np.dtype(object if texts else DTYPES[spec.datatype])
    found: Array = np.zeros((len(rows), *wanted), dtype)
    told: dict[int, str] = {}
    for index, row in enumerate(rows):
        if isinstance(row, str):
            told[index] = f"{name} {row}"
        elif row is not None and row.shape != wanted:
            told[index] = f"{name} has the shape {list(row.shape)}, expected {list(wanted)}"
        elif row is not None:
            found[index], problem = _narrowed(row, dtype)
            if problem:
                told[index] = f"{name} {problem}"
    bad = np.array([index in told for index in range(len(rows))], bool)
    return found, [Problem(rows=bad, code="ShapeMismatch", message=lambda index: told[index])] if told else []


def _row(value: Any, *, texts: bool) -> Array | str:
    """One row as an array, or what is the matter with it."""
    try:
        row = np.array(value, object if texts else None)
    except ValueError:
        return "holds lists of different lengths"
    if texts:
        encoded = [each.encode() if isinstance(each, str) else each for each in row.ravel()]
        return "holds a null" if None in encoded else _objects(encoded).reshape(row.shape)
    return "holds a null" if row.dtype == object else row


def _objects(values: list[bytes]) -> Array:
    found: Array = np.empty(len(values), object)
    found[:] = values
    return found


def _narrowed(row: Array, dtype: np.dtype[Any]) -> tuple[Array, str]:
    if dtype.kind in "iu" and row.size and row.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(row.min()) < limits.min or int(row.max()) > limits.max:
            return np.zeros(row.shape, dtype), f"holds a value that {dtype} cannot hold"
    return row.astype(dtype), ""


def _pixels(spec: TensorSpec, array: pa.Array) -> tuple[Array, list[Problem]]:
    """Encoded images as [rows, height, width, channels], or channels first where the signature says so."""
    if Image is None:
        raise Refused(Reason.ENVIRONMENT_MISSING, "decoding images needs Pillow: pip install 'modelyard[images]'")
    shape = spec.shape[1:]
    first = shape[0] in (1, 3) and shape[2] not in (1, 3)
    channels = shape[0] if first else shape[2]
    height, width = shape[1:] if first else shape[:2]
    decoded = [_decoded(data, "L" if channels == 1 else "RGB") for data in array.to_pylist()]
    some = next((pixels.shape for pixels, _ in decoded if pixels is not None), (1, 1))
    wanted = (some[0] if height < 0 else height, some[1] if width < 0 else width)
    rows: list[Array] = []
    told: dict[int, str] = {}
    for index, (pixels, problem) in enumerate(decoded):
        if pixels is not None and pixels.shape[:2] != wanted:
            problem = f"the image has {pixels.shape[0]} x {pixels.shape[1]} pixels, expected {wanted[0]} x {wanted[1]}"
        if problem or pixels is None:
            told[index] = problem
            pixels = np.zeros((*wanted, channels), np.uint8)
        rows.append(pixels.transpose(2, 0, 1) if first else pixels)
    bad = np.array([index in told for index in range(len(array))], bool)
    found = (
        np.stack(rows).astype(DTYPES[spec.datatype]) if rows else np.zeros((0, *map(abs, shape)), DTYPES[spec.datatype])
    )
    problem_of = Problem(rows=bad, code="ImageInvalid", message=lambda index: told[index])
    return found, [problem_of] if told else []


def _decoded(data: bytes | None, mode: str) -> tuple[Array | None, str]:
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            pixels: Array = np.asarray(image.convert(mode))
    except Exception as error:  # Pillow raises whatever the file makes it raise
        return None, f"the file is no image that can be decoded: {str(error)[:200]}"
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), ""


def column(array: Array, kind: pa.DataType, rows: int) -> pa.Array:
    """What a model gave as a column. Raises ValueError where it has another shape than its signature."""
    if len(array) != rows:
        raise ValueError(f"the model gave {len(array)} rows for {rows}")
    if not _is_nested(kind):
        return _values(array.reshape(rows), kind)
    sizes = array.shape[1:]
    kinds = []
    while _is_nested(kind):
        kinds.append(kind)
        kind = kind.value_type
    found = _values(array.reshape(-1), kind)
    for each, size in reversed(list(zip(kinds, sizes, strict=True))):
        if pa.types.is_fixed_size_list(each):
            found = pa.FixedSizeListArray.from_arrays(found, size)
        else:
            count = len(found) // size if size else int(np.prod(array.shape[: sizes.index(size) + 1]))
            found = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * size), found)
    return found


def _values(flat: Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array([each.decode("utf-8", "replace") for each in flat], kind)
    return pa.array(np.ascontiguousarray(flat), kind)


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(array: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_fixed_size_list(array.type):
        return np.full(len(array), array.type.list_size, np.int64)
    found: NDArray[np.int64] = pc.fill_null(pc.list_value_length(array), -1).to_numpy().astype(np.int64)
    return found


def _flat(array: pa.Array, width: int) -> pa.Array:
    """The values one level deeper; of a null in a fixed-size list there are as many as of others."""
    if pa.types.is_fixed_size_list(array.type):
        return array.values.slice(array.offset * width, len(array) * width)
    return array.flatten()
