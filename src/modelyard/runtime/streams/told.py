"""What a runner says: its report, about once a second and when something changed that matters."""

from collections.abc import Sequence

import msgspec

from modelyard.base.errors import UserError
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.streams.books import Books, Partition
from modelyard.runtime.streams.machine import Problem
from modelyard.wire.report import Failure, PartitionReport, Report, StreamReport
from modelyard.wire.work import StreamWork

_COUNT_SECONDS = 2.0
_MOST_PROBLEM = 1500
"""Characters: the report must hold 32 partitions beside it."""


def report(
    work: StreamWork,
    books: Books,
    held: Sequence[Partition],
    problems: Sequence[Problem],
    *,
    connected: bool,
    now: float,
) -> StreamReport:
    """Of a runner that could work. now: monotonic seconds. Totals come from the committed offsets where those have
    them."""
    offsets = [each.offset for each in held if each.offset is not None]
    fenced = work.delivery == "exactlyOnce"
    latency = books.latency(now)
    return StreamReport(
        ready=True,
        connected=connected,
        partitions=tuple(
            PartitionReport(number=each.number, committed=each.offset.position if each.offset else None, lag=each.lag)
            for each in held
        ),
        records=sum(each.records for each in offsets) if fenced else books.records,
        dead_letters=sum(each.dead_letters for each in offsets) if fenced else books.dead_letters,
        expired=sum(each.expired for each in offsets) if fenced else books.expired,
        records_per_second=round(books.pace(now), 1),
        latency_seconds=None if latency is None else round(latency, 4),
        problem=_problem(problems),
    )


def _problem(problems: Sequence[Problem]) -> Failure | None:
    if not problems:
        return None
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len({each.message for each in problems}) > 1 else ""
    message = first.message[:_MOST_PROBLEM] + more
    return Failure(reason=first.reason, message=message, retry=True)


class Reporter:
    """Writes what changed: at once what matters, and every two seconds what is only counted."""

    def __init__(self, file: ReportFile) -> None:
        self._file = file
        self._last = StreamReport()
        self._written = float("-inf")
        self._any = False

    def tell_when_due(self, found: StreamReport, now: float) -> None:
        """now: monotonic seconds. Raises OSError."""
        if _shape(found) != _shape(self._last) or now - self._written >= _COUNT_SECONDS:
            self.tell(found)
            self._written = now

    def tell(self, found: StreamReport) -> None:
        """Raises OSError if it cannot be written."""
        if self._any and found == self._last:
            return
        self._last, self._any = found, True
        try:
            self._file.write(Report(stream=found))
        except UserError:  # a problem told in very wide characters
            self._file.write(Report(stream=_short(found)))


def _short(found: StreamReport) -> StreamReport:
    if found.problem is None:
        return msgspec.structs.replace(found, latency_seconds=None)
    told = msgspec.structs.replace(found.problem, message=found.problem.message[: _MOST_PROBLEM // 8] + " ...")
    return msgspec.structs.replace(found, problem=told)


def _shape(found: StreamReport) -> tuple[object, ...]:
    begun = tuple((each.number, each.committed is None) for each in found.partitions)
    return found.ready, found.connected, begun, found.problem, found.expired > 0
