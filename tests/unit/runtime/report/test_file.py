import os
from pathlib import Path

import pytest

from modelyard.runtime.report.file import ReportFile
from modelyard.wire import report
from modelyard.wire.report import CleanReport, JobReport, PrepareReport, Report, ServeReport, StreamReport


def test_a_report_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = ReportFile(tmp_path / "report.json")
    for ready in (False, True):
        file.write(report.Report(serve=report.ServeReport(ready=ready)))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o600
    read = report.decode((tmp_path / "report.json").read_bytes())
    assert read.serve is not None
    assert read.serve.ready


LAST = [
    report.failure("LoadFailed", "no"),
    report.failure("LoadFailed", "\u65e5" * 5000, retry=True),
    Report(prepare=PrepareReport(digest="sha256:0", format="onnx")),
    Report(clean=CleanReport(done=True)),
    Report(job=JobReport(done=True)),
]


@pytest.mark.parametrize("last", LAST, ids=["failure", "long failure", "prepare", "clean", "job"])
def test_a_last_report_is_written_in_place_too(tmp_path: Path, last: Report) -> None:
    termination = tmp_path / "termination-log"
    termination.write_text("x" * 5000)
    inode = termination.stat().st_ino
    file = ReportFile(tmp_path / "report.json", str(termination))
    file.write(last)
    assert termination.stat().st_ino == inode, "a mounted file cannot be replaced"
    assert termination.read_bytes() == (tmp_path / "report.json").read_bytes() == file.latest
    assert 0 < termination.stat().st_size <= 4096


@pytest.mark.parametrize(
    "passing", [Report(serve=ServeReport()), Report(job=JobReport()), Report(stream=StreamReport())]
)
def test_what_passes_is_not(tmp_path: Path, passing: Report) -> None:
    termination = tmp_path / "termination-log"
    termination.touch()
    file = ReportFile(tmp_path / "report.json", str(termination))
    assert file.latest == b""
    file.write(passing)
    assert (termination.read_bytes(), file.latest) == (b"", (tmp_path / "report.json").read_bytes())


def test_where_it_cannot_be_written_the_log_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    for name in ("missing", "link", "."):
        ReportFile(tmp_path / "report.json", str(tmp_path / name)).write(report.failure("LoadFailed", "no model there"))
    assert caplog.text.count("no model there") == 3
    assert not (tmp_path / "elsewhere").exists()
