"""The README does what it says."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from yard_testing import gone, wait_until

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 60


def test_every_file_that_documents_link_to_is_there() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name} links to {target}"


@pytest.mark.timeout(180)
def test_the_first_service_by_hand_works_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns(".modelyard"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("KUBECONFIG", None)
    first, second = (block.replace("source .venv/bin/activate\n", "") for block in _blocks("bash"))
    first = first.replace("modelyard up .", "exec modelyard up . --listen 127.0.0.1:0")
    log = tmp_path / "up.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            ["bash", "-ec", first], cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: "Ready:" in log.read_text() or server.poll() is not None, "modelyard up", 60)
        assert server.poll() is None, log.read_text()
        started = psutil.Process(server.pid).children(recursive=True)
        told = subprocess.run(
            ["bash", "-ec", second], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert "digits-forest" in told.stdout
        assert "KIND:       ModelService" in told.stdout
        asked = subprocess.run(
            [sys.executable, "-c", _blocks("python")[0]],
            cwd=tmp_path / "examples" / "01-first-service",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert re.fullmatch(r"\[\d \d \d\]\n", asked.stdout), asked.stdout + asked.stderr
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    gone(started)
