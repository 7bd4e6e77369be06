"""Where and with what the processes of one driver run."""

import hashlib
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelyard.base.clock import Clock
from modelyard.control.drivers.ledger import Ledger
from modelyard.control.drivers.variables import SecretFiles, Secrets
from modelyard.control.ir import names
from modelyard.control.ir.unit_secret import UnitSecret
from modelyard.wire.place import Place
from modelyard.wire.work import WorkSpec

LONGEST_RUN_FOLDER = 60
"""Bytes: leaves room for a readable socket name within the kernel's limit."""
_LONGEST_SOCKET = 107


@dataclass(frozen=True, kw_only=True, slots=True)
class Programs:
    """Command lines of the runtime half, whose environment has their Place.

    job: what scores or runs; stream: what follows a stream, or cleans up after one.
    """

    serve: tuple[str, ...] = (sys.executable, "-m", "modelyard.runtime.front")
    prepare: tuple[str, ...] = (sys.executable, "-m", "modelyard.runtime.prepare")
    job: tuple[str, ...] = (sys.executable, "-m", "modelyard.runtime.jobs")
    stream: tuple[str, ...] = (sys.executable, "-m", "modelyard.runtime.streams")

    def of(self, work: WorkSpec) -> tuple[str, ...]:
        """What does this work."""
        if work.serve is not None:
            return self.serve
        if work.prepare is not None:
            return self.prepare
        return self.stream if asks_broker(work) else self.job


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """run: sockets, a private path of at most 60 bytes. work: a private folder for each process, emptied at start.

    logs: `<replica or member>.log` and `.log.1`. cache: artifacts by digest. root: what relative URIs are relative to.
    """

    run: Path
    work: Path
    logs: Path
    cache: Path
    root: Path

    def own(self, name: str) -> Path:
        """The private folder of a replica, or a member of a task."""
        return self.work / name

    def place(self, name: str, *, socket: bool, broker: bool = False, shadow: bool = False) -> Place:
        """Where a process finds its things. socket: whether it listens; broker: whether it may need the local one;
        shadow: whether it may get copies of requests."""
        own = self.own(name)
        return Place(
            work=str(own / "work.json"),
            report=str(own / "report.json"),
            scratch=str(own / "scratch"),
            cache=str(self.cache),
            root=str(self.root),
            socket=str(self.socket(name)) if socket else "",
            broker=str(self.broker()) if broker else "",
            shadow=str(self.run / names.SHADOW_SOCKET) if shadow else "",
        )

    def broker(self) -> Path:
        """The file that tells how the local broker is reached, while there is one."""
        return self.run / "broker.json"

    def secrets(self, name: str) -> Path:
        """Where a process finds its credentials: `<role>/<key>`."""
        return self.own(name) / "secrets"

    def socket(self, name: str) -> Path:
        """`<run>/r/<replica>.sock`; a hash stands for names that are too long for the kernel."""
        readable = self.sockets() / f"{name}.sock"
        if len(os.fsencode(readable)) <= _LONGEST_SOCKET:
            return readable
        return self.sockets() / f"{hashlib.blake2s(name.encode(), digest_size=10).hexdigest()}.sock"

    def sockets(self) -> Path:
        """Of our processes alone."""
        return self.run / "r"

    def log(self, name: str) -> Path:
        """The current log file; the one before it has `.1` added."""
        return self.logs / f"{name}.log"

    def records(self) -> Path:
        """Where running processes are noted, for the server after one that was killed."""
        return self.run / "processes"

    def remove(self, name: str) -> None:
        """Everything of a process that ended but its log."""
        shutil.rmtree(self.own(name), ignore_errors=True)
        with suppress(OSError):
            self.socket(name).unlink()


def asks_broker(work: WorkSpec) -> bool:
    """Whether its process talks to a broker, which may be the local one."""
    return work.stream is not None or work.clean is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What all processes of one driver share."""

    programs: Programs
    folders: Folders
    secrets: Secrets
    secret_files: SecretFiles
    unit_secret: UnitSecret
    ledger: Ledger
    clock: Clock
