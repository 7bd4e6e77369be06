import os
from pathlib import Path

import msgspec
import pytest

from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.report.usage import Meter
from modelyard.wire import report
from modelyard.wire.report import CleanReport, JobReport, PrepareReport, Report, ServeReport, StreamReport
from modelyard.wire.work import TensorSpec


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


def test_what_was_used_is_told_up_to_now_where_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 1000000\n")
    file = ReportFile(tmp_path / "report.json", meter=Meter(tmp_path))
    file.write(Report(job=JobReport(rows=1)))
    (tmp_path / "cpu.stat").write_text("usage_usec 3000000\n")
    for data, seconds in (((tmp_path / "report.json").read_bytes(), 1.0), (file.latest, 3.0)):
        read = report.decode(data)
        assert read.usage
        assert (read.usage.cpu_seconds, read.job) == (seconds, JobReport(rows=1))
    large = Report(prepare=PrepareReport(digest="sha256:0", format="onnx", inputs=columns(4090)))
    file.write(large)
    assert report.decode(file.latest) == large


def columns(size: int) -> tuple[TensorSpec, ...]:
    """So many that the report has about this size, which leaves no room."""
    found: tuple[TensorSpec, ...] = ()
    while True:
        more = (*found, TensorSpec(name=f"x{len(found)}", datatype="FP32", shape=(-1,)))
        if (
            len(msgspec.json.encode(Report(prepare=PrepareReport(digest="sha256:0", format="onnx", inputs=more))))
            > size
        ):
            return found
        found = more


def test_where_it_cannot_be_written_the_log_says_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    for name in ("missing", "link", "."):
        ReportFile(tmp_path / "report.json", str(tmp_path / name)).write(report.failure("LoadFailed", "no model there"))
    assert caplog.text.count("no model there") == 3
    assert not (tmp_path / "elsewhere").exists()
