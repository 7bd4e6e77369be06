import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base import durations


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600), ("0s", 0)])
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "1d", "-1s", "1.5s", "s", "1m 30s", "1s\n"])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        durations.parse(text)


@given(st.integers(0, 10**9))
def test_the_text_of_a_duration_reads_back_the_same(milliseconds: int) -> None:
    assert round(durations.parse(durations.text(milliseconds / 1000)) * 1000) == milliseconds


def test_ages_look_as_in_kubectl() -> None:
    assert [durations.age(s) for s in (0, 119, 312, 3600, 7200, 180_000)] == [
        "0s",
        "119s",
        "5m12s",
        "60m",
        "120m",
        "2d",
    ]
