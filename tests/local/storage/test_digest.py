import subprocess
from pathlib import Path

from modelyard.storage.digest import digest


def _shell(line: str, folder: Path) -> str:
    return "sha256:" + subprocess.check_output(["sh", "-c", line], cwd=folder, text=True)[:64]


def test_anybody_can_compute_the_digest_with_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(b"a")
    (tmp_path / "sub.txt").write_bytes(b"t")
    (tmp_path / "b.bin").write_bytes(b"bb")
    line = "find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    assert digest(tmp_path) == _shell(line, tmp_path)
    assert digest(tmp_path / "b.bin") == _shell("sha256sum < b.bin | sha256sum", tmp_path)
