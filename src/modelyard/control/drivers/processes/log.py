"""The log of one replica or task: bounded on disk, its last lines at hand."""

import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from modelyard.control.ir.values import Key

logger = logging.getLogger(__name__)

MAX_BYTES = 8 * 2**20
"""Of one file; there are two: the current one and the one before."""
_TAIL_BYTES = 16 * 2**10
_TAIL_LINES = 10
_TAIL_CHARACTERS = 1500
_LINE_CHARACTERS = 400
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Log:
    """Append-only with rotation. A full disk loses lines of the file, never the process or the last lines."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = -1
        self._size = 0
        self._tail = bytearray()
        self._failed = False

    def start(self) -> None:
        """A process begins: its last lines are its own."""
        self._tail.clear()

    def write(self, data: bytes) -> None:
        """Add output as it comes."""
        self._tail += data
        del self._tail[:-_TAIL_BYTES]
        try:
            self._write(data)
        except OSError as error:
            if not self._failed:
                logger.warning("%s cannot be written: %s; output is lost", self._path, error.strerror)
            self._failed = True
            self.close()
        else:
            self._failed = False

    def tail(self) -> str:
        """The last lines of the current process, at most ten, without control characters; "" if it said nothing."""
        text = _CONTROL.sub("", bytes(self._tail).decode(errors="replace"))
        lines = [line.rstrip()[:_LINE_CHARACTERS] for line in text.splitlines() if line.strip()]
        return "\n".join(lines[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]

    def close(self) -> None:
        """Further writes open it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._file < 0:
                self._open()
            if self._size >= self._max_bytes:
                self.close()
                self._path.replace(previous(self._path))
                continue
            done = os.write(self._file, view[: self._max_bytes - self._size])
            self._size += done
            view = view[done:]

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size


def said(log: Log, owner: Key) -> str:
    """The end of a sentence about a process: its last lines, and where more are."""
    tail = log.tail()
    if not tail:
        return "; it wrote nothing to its log"
    return f"; 'modelyard logs {owner.name}' shows its log, which ends with:\n{tail}"


def previous(path: Path) -> Path:
    """The file before the current one."""
    return path.with_name(path.name + ".1")


def files(path: Path) -> tuple[Path, ...]:
    """What exists of a log, oldest first."""
    return tuple(each for each in (previous(path), path) if each.exists())


def remove(path: Path) -> None:
    """Forget a log."""
    for each in (path, previous(path)):
        with suppress(OSError):
            each.unlink()


def prune(folder: Path, *, keep: frozenset[str], most: int) -> None:
    """Remove the oldest logs of what no longer runs. keep: names of what does; most: logs of others that stay."""
    ended = [path for path in folder.glob("*.log") if path.name.removesuffix(".log") not in keep]
    ended.sort(key=_changed, reverse=True)
    for path in ended[most:]:
        remove(path)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
