"""Envoy's messages, from the file that the build makes."""

import pytest

from modelyard.base.errors import UserError
from modelyard.control.gateway import descriptors
from modelyard.control.render import xds


def test_equal_bodies_have_equal_bytes() -> None:
    one = descriptors.encode(xds.CLUSTER, xds.cluster("a"))
    assert one == descriptors.encode(xds.CLUSTER, dict(reversed(xds.cluster("a").items())))
    assert one != descriptors.encode(xds.CLUSTER, xds.cluster("b"))


def test_what_is_no_such_message_is_said() -> None:
    with pytest.raises(UserError, match="cannot be said to Envoy"):
        descriptors.encode(xds.CLUSTER, {"connect_timeout": "99999999999999s"})


def test_a_missing_file_names_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "FILE", "missing.binpb.z")
    descriptors.message_class.cache_clear()
    descriptors._pool.cache_clear()
    try:
        with pytest.raises(UserError, match="make setup"):
            descriptors.message_class(xds.CLUSTER)
    finally:
        descriptors._pool.cache_clear()
