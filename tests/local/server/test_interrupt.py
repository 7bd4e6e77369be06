"""Ctrl-C while the server starts: it ends at once, says so, and leaves nothing."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from yard_testing import MODELYARD, gone, wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_start_that_is_interrupted_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*MODELYARD, "up", ".", "--listen", "127.0.0.1:0"], cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT
        )
    wait_until(lambda: "is starting" in log.read_text(), "starting")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(20) == 0
    assert log.read_text().splitlines()[-1].startswith("stopped")
    gone(children)
    assert not (tmp_path / ".modelyard" / "server.json").exists()
