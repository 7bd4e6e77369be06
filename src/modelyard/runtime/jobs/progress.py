"""How far a run is, as a report: derived from the commits alone, so that a restart of anything loses nothing."""

from collections import deque

import msgspec

from modelyard.base.errors import UserError
from modelyard.runtime.jobs.layout import RunSeen
from modelyard.runtime.jobs.shards import RunRecord
from modelyard.runtime.report.file import ReportFile
from modelyard.wire import report as reports
from modelyard.wire.report import JobReport, Report

_WINDOW_SECONDS = 30.0


class Progress:
    """Writes the report when something changed. now: monotonic seconds."""

    def __init__(self, file: ReportFile) -> None:
        self.uri = ""
        """Of the output, when it is known."""
        self._file = file
        self._points: deque[tuple[float, int]] = deque()
        self._last: JobReport | None = None

    def say(self, note: str) -> None:
        """What happens before there is a run."""
        self._write(JobReport(note=note, output=self.uri))

    def report(self, report: JobReport) -> None:
        """As it is."""
        self._write(report)

    def tell(self, record: RunRecord, run: RunSeen, now: float) -> None:
        """What a listing says about the run."""
        done = run.rows + run.errors
        self._points.append((now, done))
        while len(self._points) > 2 and now - self._points[0][0] > _WINDOW_SECONDS:
            self._points.popleft()
        pace = self._pace()
        left = record.total_rows - done
        self._write(self._report(record, run, pace=pace, left=left))

    def done(self, record: RunRecord, run: RunSeen, *, already: bool) -> None:
        """The run is closed."""
        found = self._report(record, run, done=True, already=already)
        self._write(found)

    def fail(self, report: Report) -> None:
        """The last report of a process that cannot go on."""
        self._file.write(report)

    def _report(
        self,
        record: RunRecord,
        run: RunSeen,
        *,
        pace: float = 0.0,
        left: int = 0,
        done: bool = False,
        already: bool = False,
    ) -> JobReport:
        return JobReport(
            run=record.number,
            done=done,
            already=already,
            shards=len(record.shards),
            committed=len(run.commits),
            rows=run.rows,
            error_rows=run.errors,
            total_rows=record.total_rows,
            rows_per_second=pace,
            eta_seconds=left / pace if pace and left else None,
            output=self.uri[:1024],
            errors=f"{self.uri}/_run/{record.number}/errors"[:1024] if run.errors else "",
        )

    def _pace(self) -> float:
        (began, before), (now, after) = self._points[0], self._points[-1]
        return (after - before) / (now - began) if now > began else 0.0

    def _write(self, report: JobReport) -> None:
        if report != self._last:
            self._last = report
            try:
                self._file.write(reports.Report(job=report))
            except UserError:  # very long uris in very wide characters: numbers matter more
                short = msgspec.structs.replace(report, output="", errors="", metrics=())
                self._file.write(reports.Report(job=short))
