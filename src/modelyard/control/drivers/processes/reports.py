"""Reading the report file of a process, which runs untrusted code and owns the file."""

import os
import stat
from pathlib import Path

from modelyard.base.errors import UserError
from modelyard.wire import report as wire
from modelyard.wire.report import Report

LOOK_SECONDS = 0.5
"""Between looks at the reports of what runs: its owner is told no more often, however much is reported."""


class ReportWatch:
    """Tells a new report once. It costs one stat while nothing changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def fresh(self) -> Report | None:
        """The report, if it changed since the last call. Raises UserError if what is there is not a report."""
        try:
            found = self._path.lstat()
        except OSError:
            return None
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if version == self._seen:
            return None
        self._seen = version
        return read(self._path)


def read(path: Path) -> Report | None:
    """None if there is none. Raises UserError on anything but a regular file that holds a report."""
    try:
        # Neither a link out of the folder nor a FIFO that would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"the report cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError("the report is not a regular file")
        data = os.read(descriptor, wire.MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"the report cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return wire.decode(data)
