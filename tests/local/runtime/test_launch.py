import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from modelyard.base import launch


def wait_for(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no death signal")
def test_a_child_dies_with_its_parent_killed_with_9(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    parent = f"""
import subprocess, sys
from modelyard.base import launch
child = subprocess.Popen(launch.command(["sleep", "600"]))
open({str(noted)!r} + ".new", "w").write(str(child.pid))
import os; os.rename({str(noted)!r} + ".new", {str(noted)!r})
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        wait_for(noted.exists)
        child = int(noted.read_text())
        wait_for(lambda: psutil.Process(child).name() == "sleep")
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: _gone(child))


def test_a_program_whose_parent_has_ended_already_is_not_started(tmp_path: Path) -> None:
    line = launch.command(["touch", str(tmp_path / "ran")])
    line[line.index(str(os.getpid()))] = "1"
    assert subprocess.run(line, check=False).returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "ran").exists()


def test_the_program_leads_a_session_and_reacts_to_signals_as_if_started_from_a_shell() -> None:
    status = "import os; print(os.getsid(0) == os.getpid())"
    line = launch.command([sys.executable, "-c", status])
    assert subprocess.check_output(line, text=True) == "True\n"
    ignored = subprocess.check_output(launch.command(["grep", "SigIgn", "/proc/self/status"]), text=True)
    assert int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_descriptors_get_their_numbers_even_where_they_overlap() -> None:
    first, one = os.pipe()
    second, two = os.pipe()
    os.write(one, b"first")
    os.write(two, b"second")
    os.close(one)
    os.close(two)
    with open(second, "rb") as two_source, open(first, "rb") as one_source:
        show = f"import os; print(os.read({first}, 9), os.read({second}, 9))"
        line = launch.command([sys.executable, "-c", show], descriptors={first: second, second: first})
        out = subprocess.check_output(line, pass_fds=(one_source.fileno(), two_source.fileno()), text=True)
    assert out == "b'second' b'first'\n"


def test_limits_hold_in_the_program() -> None:
    line = launch.command(["sh", "-c", "ulimit -c; ulimit -n"], limits={"core": 0, "nofile": 100})
    assert subprocess.check_output(line, text=True) == "0\n100\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 100


@pytest.mark.parametrize(("program", "status"), [("/nowhere/program", 127), ("/etc/passwd", 126)])
def test_a_program_that_cannot_run_is_named(program: str, status: int) -> None:
    ended = subprocess.run(launch.command([program]), check=False, capture_output=True, text=True)
    assert ended.returncode == status
    assert f"cannot run {program}" in ended.stderr
    assert "Traceback" not in ended.stderr
