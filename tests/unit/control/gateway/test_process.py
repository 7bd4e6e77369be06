"""What Envoy is started with, and what becomes of its log."""

from pathlib import Path

from modelyard.control.gateway import process


def test_envoy_asks_and_answers_on_private_sockets_only() -> None:
    found = process.bootstrap("/run/ads.sock", "/run/envoy.sock", 100)
    assert found["admin"]["address"] == {"pipe": {"path": "/run/envoy.sock", "mode": 0o600}}
    assert "socket_address" not in str(found)


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
