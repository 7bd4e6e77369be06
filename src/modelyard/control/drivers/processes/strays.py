"""Processes that must not be left: members of an ended leader's session, or marked by the environment it had.

A replica may start anything, in sessions of its own and behind its parent's back. What it starts inherits its
environment, so the path in `MODELYARD_WORK` says whose it is (Jenkins finds stray processes in the same way).
"""

import logging
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from modelyard.wire.place import ENV_WORK

log = logging.getLogger(__name__)

_ROUNDS = 20
_PATIENCE_SECONDS = 5.0
_SAME_START_SECONDS = 2.0


def end_all(leader: int, work: str, known: tuple[psutil.Process, ...]) -> None:
    """Kill everything that an ended leader left. It must not have been reaped yet, so that its number is still its own.

    known: descendants seen earlier. Blocks for some milliseconds: run it in a thread.
    """
    alive = {process.pid for process in known if process.is_running()}
    exempt = {leader, os.getpid()}
    _end(lambda pid: pid in alive or _session(pid) == leader or _mark(pid) == work, exempt)


def end_leftovers(records: Path, work: Path) -> int:
    """Kill what an earlier driver on these folders left, when that was killed itself; returns how many there were."""
    leaders = {int(path.name): path for path in records.glob("*") if path.name.isdecimal()}
    ours = {pid for pid, path in leaders.items() if _still_ours(pid, path)}

    def left(pid: int) -> bool:
        return pid in ours or _session(pid) in ours or _mark(pid).startswith(f"{work}{os.sep}")

    count = _end(left, exempt={os.getpid()})
    for path in leaders.values():
        path.unlink(missing_ok=True)
    return count


def record(records: Path, pid: int) -> None:
    """Note a leader by its number and when it started: numbers are used again."""
    with suppress(psutil.Error):
        started = str(psutil.Process(pid).create_time())
        path = records / str(pid)
        path.touch(mode=0o600)
        path.write_text(started)


def forget(records: Path, pid: int) -> None:
    """It was reaped."""
    with suppress(OSError):
        (records / str(pid)).unlink()


def trees(leaders: Iterable[int]) -> dict[int, list[psutil.Process]]:
    """Each leader with all its descendants, from one look at the process table. Run it in a thread."""
    processes: dict[int, psutil.Process] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for pid in psutil.pids():
        with suppress(psutil.Error):
            processes[pid] = psutil.Process(pid)
            children[processes[pid].ppid()].append(pid)
    found = {}
    for leader in leaders:
        pids = [leader]
        for pid in pids:
            pids += children[pid]
        found[leader] = [processes[pid] for pid in pids if pid in processes]
    return found


def _end(wanted: Callable[[int], bool], exempt: set[int]) -> int:
    """Kill in rounds, since a process may fork while others are killed; zombies do not count."""
    killed: set[int] = set()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for _ in range(_ROUNDS):
        found = [pid for pid in psutil.pids() if pid not in exempt and wanted(pid) and not _zombie(pid)]
        if not found:
            return len(killed)
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
        while time.monotonic() < deadline and not all(_zombie(pid) for pid in found):
            time.sleep(0.005)
    log.warning("processes that do not end although they were killed: %s", ", ".join(map(str, found)))
    return len(killed)


def _still_ours(pid: int, path: Path) -> bool:
    """A number is not used again while its session has members: a dead leader's session is its own."""
    try:
        noted = float(path.read_text())
        return abs(psutil.Process(pid).create_time() - noted) < _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (ValueError, OSError, psutil.Error):
        return False


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _mark(pid: int) -> str:
    try:
        return psutil.Process(pid).environ().get(ENV_WORK, "")
    except (psutil.Error, OSError):
        return ""


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
