"""The report file: replaced as a whole, so that a reader sees the last complete report or none.

A last report goes into a container's termination message as well, where it outlives the container.
Source: Kubernetes, "Determine the Reason for Pod Failure" (terminationMessagePath, at most 4096 bytes).
"""

import logging
import os
from pathlib import Path

from msgspec.structs import replace

from modelyard.base.errors import UserError
from modelyard.runtime.report.usage import Meter
from modelyard.wire import report as reports
from modelyard.wire.place import Place
from modelyard.wire.report import Report

_log = logging.getLogger(__name__)


class ReportFile:
    """The file that one process owns and its driver reads; mode 0600.

    termination: a file that is there already and cannot be replaced, since it is mounted; "": none. meter: what a
    driver cannot measure is told with each report.
    """

    def __init__(self, path: Path, termination: str = "", meter: Meter | None = None) -> None:
        self._path = path
        self._termination = termination
        self._meter = meter
        self._report: Report | None = None

    @property
    def latest(self) -> bytes:
        """What was written last, with what has been used until now; b"" before."""
        return self._encoded(self._report) if self._report else b""

    @classmethod
    def of(cls, place: Place) -> "ReportFile":
        """Of a process that was started there."""
        return cls(Path(place.report), place.termination, Meter() if place.termination else None)

    def write(self, report: Report) -> None:
        """Raise UserError if the report is larger than readers accept, OSError if it cannot be written."""
        data = self._encoded(report)
        fresh = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(fresh, self._path)
        self._report = report
        if self._termination and is_last(report):
            self._write_in_place(data)

    def _encoded(self, report: Report) -> bytes:
        """Where it has room for that alone, without what was used."""
        if self._meter is not None:
            try:
                return reports.encode(replace(report, usage=self._meter.read()))
            except UserError:
                pass
        return reports.encode(report)

    def _write_in_place(self, data: bytes) -> None:
        """It tells a driver what the report's file tells another one; the log is what is left where it cannot."""
        try:
            descriptor = os.open(self._termination, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError as error:
            _log.error("the report cannot be written to %s: %s; it says %s", self._termination, error, data.decode())


def is_last(report: Report) -> bool:
    """Whether the process that writes it has nothing more to tell."""
    done = report.job is not None and report.job.done
    return done or report.failure is not None or report.prepare is not None or report.clean is not None
