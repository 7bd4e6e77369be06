"""How far two answers are apart."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.runtime.front.difference import NONE, Difference, Output, between, read


def output(data: list[Any], name: str = "y", datatype: str = "FP32", shape: list[int] | None = None) -> Output:
    return Output(name, datatype, [len(data)] if shape is None else shape, data)


def apart(one: list[Any], other: list[Any], datatype: str = "FP32") -> Difference:
    return between([output(one, datatype=datatype)], [output(other, datatype=datatype)])


def test_numbers_are_apart_by_the_largest_difference() -> None:
    assert apart([1.0, 2.0, -4.0], [1.25, 2.0, -4.5]) == Difference("", 0.5, 0.2, 0.0)
    assert apart([0.0], [0.0]) == NONE
    assert apart([1.0], [-1.0]) == Difference("", 2.0, 2.0, 0.0)
    assert apart([], []) == NONE


def test_numbers_that_are_none_equal_each_other_and_no_others() -> None:
    assert apart([None, 1.0], [None, 1.0]) == NONE
    assert apart([None, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 3.0]) == Difference("", 0.0, 0.0, 0.25)


def test_of_what_is_no_number_the_share_counts_that_is_not_equal() -> None:
    assert apart([1, 2, 3, 4], [1, 2, 3, 5], "INT64").unequal == 0.25
    assert apart([2**63, 1], [2**63 - 1, 1], "UINT64").unequal == 0.5
    assert apart(["a", "b"], ["a", "B"], "BYTES").unequal == 0.5
    assert apart([True, False], [True, False], "BOOL") == NONE
    assert apart([True, False], [1, 0], "BOOL").unequal == 1.0


def test_the_share_is_of_all_outputs() -> None:
    one = [output([1, 2], "label", "INT64"), output([0.5, 0.5], "p")]
    other = [output([0.5, 0.25], "p"), output([1, 3], "label", "INT64")]
    assert between(one, other) == Difference("", 0.25, 0.5, 0.25)


def test_outputs_that_cannot_be_compared_are_named_and_the_others_are_compared() -> None:
    one = [output([1.0], "a"), output([1.0, 2.0], "b"), output([1], "c", "INT64"), output([3.0], "same")]
    other = [output([1.0, 2.0], "b", shape=[1, 2]), output([1.0], "c"), output([4.0], "same")]
    found = between(one, other)
    assert found.structure == (
        "'a' is in one answer only; 'b' is FP32 [1, 2] and FP32 [2]; 'c' is FP32 [1] and INT64 [1]"
    )
    assert (found.absolute, found.unequal) == (1.0, 0.0)


def test_a_difference_counts_beyond_rounding_and_beyond_noise() -> None:
    assert not apart([1.0], [1.0 + 1e-7]).exceeds(NONE)
    assert apart([1.0], [1.00001]).exceeds(NONE)
    assert not apart([1.0], [1.00001]).exceeds(apart([1.0], [1.00002]))
    assert apart([1, 2], [1, 3], "INT64").exceeds(NONE)
    assert not apart([1, 2], [1, 3], "INT64").exceeds(apart([1, 2], [3, 2], "INT64"))
    unlike = between([output([1.0], "a")], [])
    assert unlike.exceeds(NONE)
    assert not unlike.exceeds(unlike)


FLOATS = st.none() | st.floats(width=64) | st.sampled_from([1.7e308, -1.7e308, 5e-324, 0.0, -0.0])
PAIRS = st.lists(st.tuples(FLOATS, FLOATS), max_size=20)


@given(PAIRS)
def test_every_difference_is_a_number_and_the_same_both_ways(pairs: list[tuple[Any, Any]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    found = apart(one, other, "FP64")
    assert found == apart(other, one, "FP64")
    assert math.isfinite(found.absolute)
    assert 0.0 <= found.relative <= 2.0
    assert 0.0 <= found.unequal <= 1.0
    assert apart(one, one, "FP64") == NONE
    if any(a != b and not (_none(a) and _none(b)) for a, b in pairs):
        assert found != NONE


def _none(value: float | None) -> bool:
    return value is None or math.isnan(value)


ELEMENTS = st.none() | st.booleans() | st.integers(-(2**64), 2**65) | st.floats() | st.text(max_size=3)
OUTPUTS = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3),
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES", "?"]),
        "shape": st.lists(st.integers(-2, 3), max_size=3),
        "data": st.lists(ELEMENTS, max_size=6),
    }
)
ANSWERS = st.lists(OUTPUTS, max_size=3).map(lambda found: json.dumps({"outputs": found}).encode())


@given(ANSWERS | st.binary(max_size=60), ANSWERS)
def test_whatever_is_answered_is_compared_or_refused(one: bytes, other: bytes) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(between(read(one), read(other)), Difference)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0]}]}',
        b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [[1.0]]}]}',
        b'{"outputs": ' + b"[" * 100_000,
        b'{"outputs": [{"name": "\xff"}]}',
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(UserError, match="an answer cannot be read"):
        read(body)
