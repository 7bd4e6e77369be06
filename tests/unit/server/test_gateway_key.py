"""The key of the gateway's secrets, in the server's folder."""

from pathlib import Path

import pytest

from modelyard.base.errors import UserError
from modelyard.server import gateway_key


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = gateway_key.read(tmp_path)
    path = tmp_path / gateway_key.NAME
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # as a copy of the folder may have left it
    assert gateway_key.read(tmp_path) == first
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"secret", b"\xff" * 64, b"0" * 63, b"0" * 64 + b"\n\n"])
def test_what_is_no_key_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / gateway_key.NAME).write_bytes(content)
    with pytest.raises(UserError, match="remove it to have a new one made") as refused:
        gateway_key.read(tmp_path)
    assert "secret" not in refused.value.message


def test_two_servers_have_two_keys(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert gateway_key.read(tmp_path / "a") != gateway_key.read(tmp_path / "b")
