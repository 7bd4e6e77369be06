"""Reports follow the commits, tell the pace, and always fit."""

from pathlib import Path

from modelyard.runtime.jobs.layout import Commit, RunSeen
from modelyard.runtime.jobs.progress import Progress
from modelyard.runtime.jobs.shards import Piece, RunRecord
from modelyard.runtime.report.file import ReportFile
from modelyard.wire import report as reports
from modelyard.wire.report import JobReport, Metric

PIECE = Piece(source=0, start=0, stop=1, first_row=0, low=0, high=100)
RECORD = RunRecord(job="j", identity="i", number=3, mode="create", format="parquet", shards=((PIECE,),) * 10)


def seen(shards: int, errors: int = 0) -> RunSeen:
    commits = {shard: Commit(100 - errors, errors, "0" * 16) for shard in range(shards)}
    return RunSeen(parts=frozenset(commits), commits=commits)


def job(path: Path) -> JobReport:
    found = reports.decode(path.read_bytes()).job
    assert found is not None
    return found


def test_the_pace_is_of_the_last_half_minute_and_tells_what_is_left(tmp_path: Path) -> None:
    progress = Progress(ReportFile(tmp_path / "report.json"))
    progress.uri = "file:///out"
    progress.tell(RECORD, seen(0), now=1000.0)
    assert (job(tmp_path / "report.json").rows_per_second, job(tmp_path / "report.json").eta_seconds) == (0.0, None)
    progress.tell(RECORD, seen(2, errors=1), now=1010.0)
    found = job(tmp_path / "report.json")
    assert (found.run, found.shards, found.committed, found.rows, found.error_rows) == (3, 10, 2, 198, 2)
    assert (found.rows_per_second, found.eta_seconds) == (20.0, 40.0)
    assert found.errors == "file:///out/_run/3/errors"
    progress.tell(RECORD, seen(3), now=1100.0)
    assert job(tmp_path / "report.json").rows_per_second == 100 / 90


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    progress = Progress(ReportFile(tmp_path / "report.json"))
    progress.say("listing")
    before = (tmp_path / "report.json").stat().st_ino
    progress.say("listing")
    assert (tmp_path / "report.json").stat().st_ino == before


def test_a_report_fits_whatever_the_uri_is(tmp_path: Path) -> None:
    progress = Progress(ReportFile(tmp_path / "report.json"))
    progress.uri = "s3://" + "\U0001f600" * 2000
    progress.tell(RECORD, seen(1, errors=1), now=1.0)
    assert job(tmp_path / "report.json").rows == 99
    metrics = tuple(Metric(name="\U0001f600" * 64, value=1.0) for _ in range(16))
    progress.report(JobReport(percent=5, metrics=metrics))
    assert job(tmp_path / "report.json").percent == 5
