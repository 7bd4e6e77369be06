"""How far two answers to one request are apart. Pure.

Outputs are compared by name, elements one by one. NaN and infinities are `null` in JSON, and equal each other here.
"""

import math
import sys
from typing import Any, NamedTuple

import msgspec
import numpy as np

from modelyard.base.errors import UserError

TOLERANCE = 1e-6
"""Numbers that differ by no more than this, relative to the larger one, are equal: FP32 itself is not more exact."""

_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_LARGEST = sys.float_info.max


class Output(msgspec.Struct):
    """One tensor of an answer. data: flat."""

    name: str
    datatype: str
    shape: list[int]
    data: list[bool | int | float | str | None]


class _Answer(msgspec.Struct):
    outputs: list[Output]


class Difference(NamedTuple):
    """structure: why some outputs cannot be compared, in a sentence, or "". absolute, relative: the largest between two
    floating-point numbers, relative ones to the larger of both, so at most 2. unequal: of all elements that are no
    such numbers, or where one is none, the share that is not equal.
    """

    structure: str = ""
    absolute: float = 0.0
    relative: float = 0.0
    unequal: float = 0.0

    def exceeds(self, noise: "Difference") -> bool:
        """Whether the answers differ, and by more than two of the same model do."""
        return (
            (bool(self.structure) and not noise.structure)
            or self.relative > max(TOLERANCE, noise.relative)
            or self.unequal > noise.unequal
        )


NONE = Difference()

_decoder = msgspec.json.Decoder(_Answer)


def read(body: bytes) -> list[Output]:
    """The outputs of an answer. Raises UserError where it is none."""
    try:
        outputs = _decoder.decode(body).outputs
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"an answer cannot be read: {error}") from error
    for each in outputs:
        if len(each.data) != math.prod(each.shape):
            raise UserError(f"an answer cannot be read: {each.name[:64]!r} has not as many elements as its shape says")
    return outputs


def between(one: list[Output], other: list[Output]) -> Difference:
    """How far two answers are apart; it does not matter which is which, nor in which order they have their outputs."""
    ours, theirs = ({each.name: each for each in outputs} for outputs in (one, other))
    unlike = (_unlike(name, ours.get(name), theirs.get(name)) for name in sorted({*ours, *theirs}))
    structure = "; ".join(each for each in unlike if each)
    absolute = relative = 0.0
    unequal = elements = 0
    for name in ours.keys() & theirs.keys():
        mine, yours = ours[name], theirs[name]
        if _unlike(name, mine, yours):
            continue
        elements += len(mine.data)
        if mine.datatype in _FLOATS:
            *apart, others = _numbers(mine.data, yours.data)
            absolute, relative = max(absolute, apart[0]), max(relative, apart[1])
            unequal += others
        else:
            unequal += sum(1 for a, b in zip(mine.data, yours.data, strict=True) if a != b or type(a) is not type(b))
    return Difference(structure, absolute, relative, unequal / elements if elements else 0.0)


def _unlike(name: str, one: Output | None, other: Output | None) -> str:
    """Why two outputs of one name cannot be compared, or ""."""
    if one is None or other is None:
        return f"{name[:64]!r} is in one answer only"
    if (one.datatype, one.shape) != (other.datatype, other.shape):
        told = " and ".join(f"{each.datatype[:16]} {each.shape[:8]}" for each in sorted((one, other), key=repr))
        return f"{name[:64]!r} is {told}"
    return ""


def _numbers(one: list[Any], other: list[Any]) -> tuple[float, float, int]:
    """Largest absolute and relative difference, and how many are not equal and not numbers on both sides."""
    a, b = (_floats(each) for each in (one, other))
    both = np.isfinite(a) & np.isfinite(b)
    alike = both | (np.isnan(a) & np.isnan(b)) | (a == b)
    unequal = int(np.count_nonzero(~alike))
    a, b = a[both], b[both]
    if not len(a):
        return 0.0, 0.0, unequal
    with np.errstate(all="ignore"):
        apart = np.abs(a - b)
        larger = np.maximum(np.abs(a), np.abs(b))
        relative = np.divide(apart, larger, out=np.zeros_like(apart), where=larger > 0)
    return min(float(apart.max()), _LARGEST), min(float(relative.max()), 2.0), unequal


def _floats(data: list[Any]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    try:
        return np.array(data, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError("an answer cannot be read: its numbers are none") from error
