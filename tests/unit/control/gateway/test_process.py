"""What Envoy is started with, and what becomes of its log."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import RetryLater
from modelyard.control.gateway import process
from modelyard.control.render import xds_bootstrap, xds_stats

LIMITS = xds_bootstrap.Limits(connections=100, public_connections=75, heap_bytes=2**30)


def test_envoy_asks_and_answers_on_private_sockets_only() -> None:
    found = xds_bootstrap.on_sockets("/run/ads.sock", "/run/envoy.sock", LIMITS)
    assert found["admin"]["address"] == {"pipe": {"path": "/run/envoy.sock", "mode": 0o600}}
    assert "socket_address" not in str(found)


def test_callers_cannot_take_all_connections_nor_all_memory() -> None:
    found = xds_bootstrap.on_sockets("/run/ads.sock", "/run/envoy.sock", LIMITS)
    connections, heap = (each["typed_config"] for each in found["overload_manager"]["resource_monitors"])
    assert connections["max_active_downstream_connections"] == 100
    assert heap["max_heap_size_bytes"] == 2**30
    assert str(found["layered_runtime"]).count("listener.gateway.connection_limit': 75") == 1


def test_the_log_and_its_predecessor_stay_bounded(tmp_path: Path) -> None:
    path = tmp_path / "envoy.log"
    chunk = b"x" * (2**20 - 1) + b"\n"
    with process.BoundedLog(path) as log:
        for _ in range(7):
            log.write(chunk)
    assert path.stat().st_size <= 2 * 2**20
    assert path.with_suffix(".log.1").stat().st_size <= 2 * 2**20
    assert len(list(tmp_path.iterdir())) == 2
    assert path.stat().st_mode & 0o777 == 0o600


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5))
def test_an_answer_in_chunks_is_put_together_or_was_cut(parts: list[bytes]) -> None:
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    assert process._whole(chunked) == b"".join(parts)
    for end in range(len(chunked) - 4):
        with pytest.raises(RetryLater, match="broke off"):
            process._whole(chunked[:end])


@given(st.binary(max_size=100))
def test_whatever_came_in_chunks_ends(chunked: bytes) -> None:
    with contextlib.suppress(RetryLater):
        process._whole(chunked)


def test_statistics_of_units_are_kept_and_few_others() -> None:
    config = xds_stats.stats_config("http.gateway.x")
    patterns = config["stats_matcher"]["inclusion_list"]["patterns"]

    def is_kept(name: str) -> bool:
        return any(
            name == each.get("exact")
            or name.startswith(each.get("prefix", "\0"))
            or re.fullmatch(each.get("safe_regex", {}).get("regex", "\0"), name)
            for each in patterns
        )

    for name in ("upstream_rq_2xx", "upstream_rq_time", "upstream_rq_active", "upstream_cx_connect_fail"):
        assert is_kept(f"cluster.iris-svc-00001.default.{name}")
        assert not is_kept(f"cluster.iris-svc-00001.default.external.{name}")
    for name in ("upstream_rq_200", "upstream_cx_total", "lb_healthy_panic", "upstream_rq_time_x"):
        assert not is_kept(f"cluster.iris-svc-00001.default.{name}")
    assert is_kept("http.gateway.x")
    assert is_kept("gateway.answers.model.iris.default.code.200.grpc.")
    assert not is_kept("http.gateway.rbac.denied")
