"""What only a process of its own shows: signals, pipes that close, completion."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from cli_testing import Project

COMMAND = [sys.executable, "-m", "modelyard"]


def test_ctrl_c_ends_a_watch_without_a_traceback(project: Project) -> None:
    started = subprocess.Popen(
        [*COMMAND, "get", "models", "-w"], cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline().startswith("NAME")
        started.send_signal(signal.SIGINT)
        _, told = started.communicate(timeout=20)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 130
    assert told.strip() == "interrupted"


def test_a_reader_that_goes_away_ends_a_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*COMMAND, "version"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_shells_can_complete_commands(tmp_path: Path) -> None:
    asked = {"COMP_WORDS": "modelyard re", "COMP_CWORD": "1", "_MODELYARD_COMPLETE": "bash_complete"}
    done = subprocess.run(
        COMMAND, env={**os.environ, **asked}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["plain,requests", "plain,refresh", "plain,restart", "plain,resume"]
