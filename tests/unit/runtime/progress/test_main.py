"""What is told from beside a program."""

from pathlib import Path

from modelyard.runtime.progress.main import latest
from modelyard.wire import report as reports
from modelyard.wire.place import Place
from modelyard.wire.report import JobReport, Report


def test_the_program_is_heard_until_what_commits_its_output_speaks(tmp_path: Path) -> None:
    place = Place(work="", report=str(tmp_path / "report.json"), cache="", scratch="", program=str(tmp_path))
    assert reports.decode(latest(place)).job == JobReport(note="running")
    (tmp_path / "progress.json").write_text('{"progressPercentage": 40}')
    assert reports.decode(latest(place)).job == JobReport(percent=40, note="running")
    done = reports.encode(Report(job=JobReport(run=1, done=True, percent=100)))
    (tmp_path / "report.json").write_bytes(done)
    assert latest(place) == done
