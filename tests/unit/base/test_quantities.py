import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base import quantities


@pytest.mark.parametrize(
    ("text", "millis"), [("500m", 500), ("2", 2000), (2, 2000), ("0.1", 100), ("1e1", 10_000), ("1n", 1), (".5", 500)]
)
def test_cpu_is_counted_in_thousandths_rounded_up(text: str | int, millis: int) -> None:
    assert quantities.millis(text) == millis


@pytest.mark.parametrize(
    ("text", "count"), [("1Gi", 2**30), ("1G", 10**9), ("512Mi", 512 * 2**20), ("1.5Ki", 1536), ("0", 0), ("100m", 1)]
)
def test_memory_is_counted_in_whole_bytes_rounded_up(text: str, count: int) -> None:
    assert quantities.whole(text) == count


@pytest.mark.parametrize("text", ["", "1GiB", "one", "1 Gi", "1e999", "--1", "1" * 80])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number|out of range"):
        quantities.parse(text)


@given(st.text(max_size=20))
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(quantities.parse(text), Decimal)


def test_sizes_are_readable() -> None:
    assert [quantities.bytes_text(n) for n in (0, 1536, 150 * 2**20, 3 * 2**40)] == [
        "0 B",
        "1.5 KiB",
        "150 MiB",
        "3.0 TiB",
    ]
