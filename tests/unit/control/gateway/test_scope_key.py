"""The hash by which Envoy finds scopes."""

import pytest

from collisions_testing import IRIS_TWIN, READY_TWIN
from modelyard.control.gateway.scope_key import hashed, xxh64


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_it_is_that_of_the_published_test_vectors(data: bytes, value: int) -> None:
    assert xxh64(data) == value


def test_names_of_equal_hash_can_be_computed() -> None:
    assert hashed(IRIS_TWIN) == hashed("iris")
    assert hashed(READY_TWIN) == hashed("ready")
    assert hashed("iris") != hashed("iris.default")
