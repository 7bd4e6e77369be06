from pathlib import Path

from modelyard.runtime.report.file import ReportFile
from modelyard.wire import report


def test_a_report_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = ReportFile(tmp_path / "report.json")
    for ready in (False, True):
        file.write(report.Report(serve=report.ServeReport(ready=ready)))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o600
    read = report.decode((tmp_path / "report.json").read_bytes())
    assert read.serve is not None
    assert read.serve.ready
