import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.control.drivers.processes import reports
from modelyard.wire import report as wire
from modelyard.wire.report import Report, ServeReport

READY = Report(serve=ServeReport(ready=True))


def test_a_report_is_told_once_for_each_version(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    watch = reports.ReportWatch(path)
    assert watch.fresh() is None
    path.write_bytes(wire.encode(READY))
    assert watch.fresh() == READY
    assert watch.fresh() is None
    later = tmp_path / "new"
    later.write_bytes(wire.encode(wire.failure("LoadFailed", "no")))
    later.replace(path)
    assert watch.fresh() == wire.failure("LoadFailed", "no")


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "large"])
def test_anything_but_a_small_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "report.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").write_bytes(wire.encode(READY))
        path.symlink_to(tmp_path / "other")
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b" " * (wire.MAX_BYTES + 1))
    with pytest.raises(UserError, match="the report"):
        reports.read(path)


@given(st.binary(max_size=5000))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("report") / "report.json"
    path.write_bytes(data)
    with suppress(UserError):
        assert isinstance(reports.read(path), Report)
