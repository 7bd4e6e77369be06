"""One process from its start until nothing of it is left.

It leads a session of its own and dies with this process (`base.launch`). Its end is noticed without reaping it, so that
its number still is its own while the rest of its session is ended.

Source: pidfd_open(2), waitid(2).
"""

import asyncio
import errno
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from modelyard.base import launch
from modelyard.base.conditions import Reason
from modelyard.control.drivers.processes import strays
from modelyard.control.drivers.processes.environment import environment
from modelyard.control.drivers.processes.log import Log
from modelyard.control.drivers.processes.site import Site, asks_broker
from modelyard.control.drivers.variables import CannotStart, files, values
from modelyard.control.ir.unit import Credential, Variable
from modelyard.wire import work as wire
from modelyard.wire.place import Place
from modelyard.wire.work import WorkSpec

logger = logging.getLogger(__name__)

_READ_BYTES = 64 * 2**10
_MOST_READS_AT_THE_END = 256
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to run. name: of the replica or member; namespace: where its Secrets are; socket: whether it listens.

    gateway_digest: of what it demands of requests, "": nothing. index, attempt, master: as in Place.
    """

    name: str
    namespace: str
    program: tuple[str, ...]
    work: WorkSpec
    variables: tuple[Variable, ...]
    credentials: tuple[Credential, ...] = ()
    socket: bool = False
    gateway_digest: str = ""
    index: int = 0
    attempt: int = 1
    master: str = ""


def start(site: Site, order: Order, log: Log, ended: Callable[[], None]) -> "Process":
    """Write its files and run it. ended: called once in the loop when it ended. Raises CannotStart.

    Call it from the main thread: what is started dies with the thread that did it.
    """
    opened = files(order.credentials, order.namespace, site.secret_files)
    place = msgspec.structs.replace(
        site.folders.place(
            order.name, socket=order.socket, broker=asks_broker(order.work), shadow=bool(order.gateway_digest)
        ),
        secrets=str(site.folders.secrets(order.name)) if order.credentials else "",
        gateway_digest=order.gateway_digest,
        index=order.index,
        attempt=order.attempt,
        master=order.master,
    )
    seen = environment(place, values(order.variables, order.namespace, site.secrets), ours=os.environ)
    try:
        _prepare(site, order, place, opened)
        log.start()
        spawned = _spawn(order, place, seen)
        process = Process(site, place, spawned, log, ended)
        try:
            process.watch()
        except BaseException:
            process.abandon()
            raise
        return process
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or site.folders.work
            message = f"no space is left for {where}: free some space on that disk"
            raise CannotStart(Reason.DISK_FULL, message) from error
        raise CannotStart(Reason.INTERNAL_ERROR, f"{order.name} cannot be started: {error}") from error


def _prepare(site: Site, order: Order, place: Place, opened: dict[str, bytes]) -> None:
    site.folders.remove(order.name)
    own = site.folders.own(order.name)
    for folder in (own, Path(place.scratch)):
        folder.mkdir(mode=0o700, parents=True)
    if place.secrets:
        roles = {credential.role for credential in order.credentials}
        for folder in (Path(place.secrets), *(Path(place.secrets) / role for role in sorted(roles))):
            folder.mkdir(mode=0o700)
    _write(Path(place.work), wire.encode(order.work))
    for name, content in opened.items():
        _write(Path(place.secrets) / name, content)


def _write(path: Path, content: bytes) -> None:
    """For its owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _spawn(order: Order, place: Place, seen: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and the reading end of its output."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, True)
    try:
        started = subprocess.Popen(
            launch.command(order.program, limits={"core": 0}),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            cwd=place.scratch,
            env=seen,
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return started, reading


class Process:
    """A running or just ended process. `finish` must be awaited, or `abandon` called, in the end."""

    def __init__(
        self,
        site: Site,
        place: Place,
        spawned: tuple[subprocess.Popen[bytes], int],
        log: Log,
        ended: Callable[[], None],
    ) -> None:
        self._popen, self._output = spawned
        self._records = site.folders.records()
        self._log = log
        self._on_end = ended
        self._watched = -1
        self._swept = False
        self._poll: asyncio.TimerHandle | None = None
        self.place = place
        self.pid = self._popen.pid
        self._over = asyncio.Event()
        self.cpu_seconds = 0.0
        self.counted_at = site.clock.monotonic()
        """Until when its memory was counted."""
        self.known: tuple[psutil.Process, ...] = ()
        """Its descendants when last looked at."""

    @property
    def has_ended(self) -> bool:
        """By itself or by a signal; what it left may still run."""
        return self._over.is_set()

    def watch(self) -> None:
        """Begin to notice its output and its end."""
        strays.record(self._records, self.pid)
        asyncio.get_running_loop().add_reader(self._output, self._read)
        if hasattr(os, "pidfd_open"):
            self._watched = os.pidfd_open(self.pid)
            asyncio.get_running_loop().add_reader(self._watched, self._end)
        else:
            self._look()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if not self.has_ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End its whole process group at once."""
        if self._popen.returncode is None:
            for end in (os.kill, os.killpg):
                with suppress(ProcessLookupError, PermissionError):
                    end(self.pid, signal.SIGKILL)

    async def finish(self) -> int:
        """Kill it and everything it left; returns its exit status, negative for a signal."""
        try:
            self.kill()
            await self._over.wait()
            await asyncio.to_thread(self._sweep)
        finally:
            self.abandon()
        return self._popen.returncode

    def abandon(self) -> None:
        """The same at once, holding up the loop; for when there is no time. Idempotent."""
        self.kill()
        self._unwatch()
        self._sweep()
        self._reap()
        self._close_output()
        self._over.set()
        strays.forget(self._records, self.pid)
        self._log.close()

    def _sweep(self) -> None:
        """End what it left, while its number still is its own."""
        if self._swept or self._popen.returncode is not None:
            return
        if hasattr(os, "waitid"):
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        strays.end_all(self.pid, self.place.work, self.known)
        self._swept = True

    def _reap(self) -> None:
        if self._popen.returncode is not None:
            return
        try:
            _, status, used = os.wait4(self.pid, 0)
        except ChildProcessError:
            self._popen.returncode = 0
            logger.warning("process %d was reaped by somebody else; its exit status is not known", self.pid)
            return
        # Set here, since Popen would wait without telling what was used.
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = max(self.cpu_seconds, used.ru_utime + used.ru_stime)

    def _look(self) -> None:
        """Where the kernel cannot tell."""
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE:
                self._poll = asyncio.get_running_loop().call_later(_POLL_SECONDS, self._look)
                return
        self._end()

    def _end(self) -> None:
        self._unwatch()
        self._over.set()
        self._on_end()

    def _unwatch(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _read(self) -> bool:
        """Take what it wrote; False when there is nothing more for now. One piece at a time: others wait their turn."""
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._output)
            return False
        self._log.write(data)
        return True

    def _close_output(self) -> None:
        if self._output < 0:
            return
        reads = 0
        while reads < _MOST_READS_AT_THE_END and self._read():
            reads += 1
        asyncio.get_running_loop().remove_reader(self._output)
        os.close(self._output)
        self._output = -1


def ending(status: int) -> str:
    """For people: how a process ended."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if -status == signal.SIGKILL:
        return "was ended by SIGKILL: by somebody, or by the kernel because memory ran out"
    return f"was ended by {name}"
