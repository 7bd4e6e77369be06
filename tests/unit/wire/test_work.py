import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.wire import work


def test_a_work_spec_reads_back() -> None:
    model = work.ModelWork(name="iris.default", aliases=("iris",), digest="sha256:x", format="onnx")
    spec = work.WorkSpec(serve=work.ServeWork(models=(model,), threads=2))
    assert work.decode(work.encode(spec)) == spec


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"version":2,"prepare":{"uri":"x"}}', "version 2 is not understood"),
        (b'{"version":1}', "exactly one of serve, prepare, score, run, stream, clean"),
        (b'{"version":1,"prepare":{"uri":"x","other":1}}', "unknown field"),
        (b"{", "not valid"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data: bytes, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        work.decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    with pytest.raises(UserError):
        work.decode(data)


def test_a_place_survives_the_environment() -> None:
    place = work.Place(work="/w", report="/r", cache="/c", scratch="/s", socket="/run/x.sock", shadow="/run/s.sock")
    assert work.Place.from_environment(place.environment()) == place


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(UserError, match="MODELYARD_CACHE, MODELYARD_SCRATCH must be set"):
        work.Place.from_environment({"MODELYARD_WORK": "/w", "MODELYARD_REPORT": "/r"})
