"""A driver of processes whose processes do what the variable LEVER says, and what is left of them."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from modelyard.base.clock import SystemClock
from modelyard.control.drivers.processes.driver import ProcessDriver
from modelyard.control.drivers.processes.site import Folders, Programs
from modelyard.control.ir.observed import ObservedMember, ObservedReplica
from modelyard.control.ir.unit import SecretKey, Variable
from modelyard.testing.driver_rig import MACHINE
from modelyard.wire.work import WorkSpec, decode

STAND_IN = Path(__file__).parent / "local" / "drivers" / "stand_in.py"
PROGRAMS = Programs(
    serve=(sys.executable, "-I", "-S", str(STAND_IN), "serve"),
    prepare=(sys.executable, "-I", "-S", str(STAND_IN), "prepare"),
    job=(sys.executable, "-I", "-S", str(STAND_IN), "job"),
    stream=(sys.executable, "-I", "-S", str(STAND_IN), "stream"),
)


class ProcessRig:
    def __init__(self, base: Path) -> None:
        self.clock = SystemClock()
        self.secrets: dict[SecretKey, str] = {}
        self.secret_files: dict[str, dict[str, bytes]] = {}
        self.unit_secrets: dict[str, str] = {}
        self.base = base
        self.folders = folders(base)
        self.driver = ProcessDriver(
            folders=self.folders,
            secrets=lambda _, key: self.secrets.get(key),
            secret_files=lambda _, name: self.secret_files.get(name),
            unit_secret=lambda unit: self.unit_secrets.get(unit, ""),
            programs=PROGRAMS,
            machine=MACHINE,
            clock=self.clock,
        )

    async def step(self) -> None:
        await asyncio.sleep(0.01)

    def kill(self, process: ObservedReplica | ObservedMember) -> None:
        os.kill(process.pid, signal.SIGKILL)

    def work(self, process: ObservedReplica) -> WorkSpec:
        return decode((self.folders.own(process.name) / "work.json").read_bytes())

    def look_again(self) -> None:
        self.driver.look_again()


def folders(base: Path) -> Folders:
    return Folders(run=base / "run", work=base / "work", logs=base / "logs", cache=base / "cache", root=base)


@asynccontextmanager
async def running(base: Path) -> AsyncIterator[ProcessRig]:
    rig = ProcessRig(base)
    async with rig.driver:
        yield rig


def marked(base: Path) -> list[psutil.Process]:
    """Everything that was started from these folders and lives."""

    def mark(process: psutil.Process) -> bool:
        try:
            return process.environ().get("MODELYARD_WORK", "").startswith(str(base)) and alive(process.pid)
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if mark(process)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(fact: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.01)


def notes(base: Path) -> Variable:
    (base / "notes").mkdir()
    return Variable(name="NOTES", value=str(base / "notes"))


def noted(base: Path, name: str) -> int:
    """A number that a process wrote down; 0: not yet."""
    path = base / "notes" / name
    return int(path.read_text() or 0) if path.exists() else 0
