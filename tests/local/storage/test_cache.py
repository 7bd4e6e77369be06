import subprocess
import sys
import time
from pathlib import Path

from modelyard.storage.cache import Cache
from modelyard.storage.digest import digest


def test_a_process_killed_with_9_while_it_stores_leaves_no_half_entry(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for index in range(40):
        (folder / f"{index}.bin").write_bytes(bytes([index]) * 200_000)
    cache = tmp_path / "cache"
    program = "import sys; from pathlib import Path; from modelyard.storage.cache import Cache\n"
    program += "print(flush=True); Cache(Path(sys.argv[2])).put(Path(sys.argv[1]))"
    interrupted = 0
    for attempt in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(folder), str(cache)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            deadline = time.monotonic() + 0.004 * attempt
            while time.monotonic() < deadline and process.poll() is None:
                pass
            process.kill()
        entries = [path.name for path in cache.glob("*")] if cache.exists() else []
        interrupted += any(name.startswith(".new-") for name in entries)
        if any(name.startswith("sha256-") for name in entries):
            assert Cache(cache).path(digest(folder)).is_dir()
            break
    Cache(cache).put(folder)
    stored = Cache(cache).path(digest(folder))
    assert digest(stored) == digest(folder)
    assert interrupted or attempt < 11


def test_processes_that_store_the_same_artifact_at_once_end_with_one_entry(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x" * 3_000_000)
    program = "import sys; from pathlib import Path; from modelyard.storage.cache import Cache\n"
    program += "sys.stdin.readline(); print(Cache(Path(sys.argv[2])).put(Path(sys.argv[1])))"
    line = [sys.executable, "-c", program, str(tmp_path / "model.bin"), str(tmp_path / "cache")]
    processes = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate("\n")[0].strip() for process in processes}
    assert answers == {digest(tmp_path / "model.bin")}
    assert len(list((tmp_path / "cache").iterdir())) == 1
