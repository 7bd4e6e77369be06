from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.wire import work
from modelyard.wire.place import Place, host_and_port


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
    place = Place(work="/w", report="/r", cache="/c", scratch="/s", socket="/run/x.sock", shadow="/run/s.sock")
    assert Place.from_environment(place.environment()) == place
    full: dict[str, Any] = {name: f"/{name}" for name in Place.__struct_fields__} | {"index": 3, "attempt": 4}
    assert Place.from_environment(Place(**full).environment()) == Place(**full)


@pytest.mark.parametrize(
    ("address", "found"),
    [("0.0.0.0:8080", ("0.0.0.0", 8080)), ("[::]:1", ("::", 1)), ("localhost:0", ("localhost", 0))],
)
def test_an_address_is_a_host_and_a_port(address: str, found: tuple[str, int]) -> None:
    assert host_and_port("WHERE", address) == found


@pytest.mark.parametrize("address", ["", "8080", ":8080", "a:", "a:b", "a:-1", "a:65536", "a:999999", "a:\xb2", "[]:1"])
def test_what_is_no_address_is_refused_by_its_variable(address: str) -> None:
    with pytest.raises(UserError, match=r"^WHERE must be HOST:PORT"):
        host_and_port("WHERE", address)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(UserError, match="MODELYARD_CACHE, MODELYARD_SCRATCH must be set"):
        Place.from_environment({"MODELYARD_WORK": "/w", "MODELYARD_REPORT": "/r"})
