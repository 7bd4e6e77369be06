"""The report file: replaced as a whole, so that a reader sees the last complete report or none."""

import os
from pathlib import Path

from modelyard.wire import report as reports


class ReportFile:
    """The file that one process owns and its driver reads; mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, report: reports.Report) -> None:
        """Raise UserError if the report is larger than readers accept, OSError if it cannot be written."""
        data = reports.encode(report)
        fresh = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(fresh, self._path)
