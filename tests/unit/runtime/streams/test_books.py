"""Numbers of a runner: in its report, and for Prometheus."""

from pathlib import Path

import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.streams import told
from modelyard.runtime.streams.books import Books, Partition, metrics
from modelyard.runtime.streams.machine import Problem
from modelyard.runtime.streams.records import Group, Message, Offset
from modelyard.wire import report as reports
from modelyard.wire.report import PartitionReport, StreamReport
from streams_testing import work


def group(*arrived: float, dead: int = 0) -> Group:
    messages = tuple(Message(position=1, subject="s", payload=b"", at=each) for each in arrived)
    return Group(messages=messages, outgoing=(), records=len(arrived), dead_letters=dead)


def test_pace_and_latency_are_those_of_the_last_seconds() -> None:
    books = Books()
    for second in range(20):
        books.committed(group(*[1000.0 + second - 0.02] * 100), 0, wall=1000.0 + second, now=float(second))
    assert books.pace(19.0) == pytest.approx(100.0)
    assert books.latency(19.0) == pytest.approx(0.02)
    assert (books.pace(60.0), books.latency(60.0)) == (0.0, None)


def test_metrics_are_counters_a_gauge_and_a_histogram() -> None:
    books = Books()
    books.committed(group(99.98, 95.0, 10.0, dead=1), 2, wall=100.0, now=1.0)
    held = [Partition(number=0, lag=7), Partition(number=3)]
    lines = metrics(books, held, "default.s").splitlines()
    assert 'modelyard_stream_records_total{stream="default.s"} 3' in lines
    assert 'modelyard_stream_dead_letters_total{stream="default.s"} 1' in lines
    assert 'modelyard_stream_expired_total{stream="default.s"} 2' in lines
    assert [each for each in lines if "_lag{" in each] == ['modelyard_stream_lag{stream="default.s",partition="0"} 7']
    assert 'modelyard_stream_latency_seconds_bucket{stream="default.s",le="0.025"} 1' in lines
    assert 'modelyard_stream_latency_seconds_bucket{stream="default.s",le="+Inf"} 3' in lines
    assert 'modelyard_stream_latency_seconds_count{stream="default.s"} 3' in lines


def test_totals_come_from_the_offsets_where_those_have_them() -> None:
    books = Books(records=5, dead_letters=1)
    offset = Offset(position=70, fence=1, records=1000, dead_letters=3, expired=2)
    held = [Partition(number=0, offset=offset, lag=4), Partition(number=1, offset=Offset(position=0))]
    found = told.report(work(), books, held, [], connected=True, now=0.0)
    assert (found.records, found.dead_letters, found.expired) == (1000, 3, 2)
    assert found.partitions == (
        PartitionReport(number=0, committed=70, lag=4),
        PartitionReport(number=1, committed=0),
    )
    without = told.report(work(delivery="atLeastOnce"), books, [Partition(number=0)], [], connected=True, now=0.0)
    assert (without.records, without.dead_letters) == (5, 1)


def test_the_largest_report_fits() -> None:
    offset = Offset(position=2**53, fence=2**53, records=2**53, dead_letters=2**53, expired=2**53)
    held = [Partition(number=each, offset=offset, lag=2**53) for each in range(32)]
    problems = [Problem(Reason.PARTITIONS_MISSING, "x" * 5000), Problem(Reason.OFFSET_LOST, "other")]
    found = told.report(work(), Books(), held, problems, connected=True, now=0.0)
    data = reports.encode(reports.Report(stream=found))
    assert len(data) < reports.MAX_BYTES
    assert found.problem is not None
    assert found.problem.message.endswith(" (and 1 more)")


def test_counts_are_written_every_two_seconds_and_what_matters_at_once(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    reporter = told.Reporter(ReportFile(path))

    def seen() -> StreamReport:
        found = reports.decode(path.read_bytes()).stream
        assert found is not None
        return found

    reporter.tell_when_due(StreamReport(ready=True, records=1), now=10.0)
    assert seen().records == 1
    reporter.tell_when_due(StreamReport(ready=True, records=2), now=11.0)
    assert seen().records == 1
    reporter.tell_when_due(StreamReport(ready=True, connected=True, records=3), now=11.2)
    assert seen().records == 3
    reporter.tell_when_due(StreamReport(ready=True, connected=True, records=4), now=13.3)
    assert seen().records == 4


def test_a_problem_in_very_wide_characters_is_cut_rather_than_lost(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    held = [Partition(number=each, offset=Offset(position=2**53), lag=2**53) for each in range(32)]
    found = told.report(
        work(), Books(), held, [Problem(Reason.OFFSET_LOST, "\U0001f600" * 1500)], connected=True, now=0
    )
    told.Reporter(ReportFile(path)).tell(found)
    back = reports.decode(path.read_bytes()).stream
    assert back is not None
    assert len(back.partitions) == 32
    assert back.problem is not None
    assert back.problem.reason == Reason.OFFSET_LOST
