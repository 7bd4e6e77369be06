"""What a program tells about itself is read as far as it can be."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.runtime.jobs.told import Told, content, read
from modelyard.wire import report as reports
from modelyard.wire.report import Metric, Report


def told(tmp_path: Path, text: str | bytes) -> Told:
    path = tmp_path / "progress.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def test_the_last_line_counts_and_a_whole_object_over_lines_as_well(tmp_path: Path) -> None:
    first, last = ({"progressPercentage": n, "metrics": {"loss": n / 100}} for n in (10, 20))
    wanted = Told(percent=20, metrics=(Metric(name="loss", value=0.2),))
    assert told(tmp_path, f"{json.dumps(first)}\n{json.dumps(last)}\n") == wanted
    assert told(tmp_path, json.dumps(last, indent=2)) == wanted
    assert told(tmp_path, f"{json.dumps(last)}\nepoch 3\n") == wanted
    assert told(tmp_path, f'{json.dumps(last)}\n{{"progressPerc') == wanted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"progressPercentage": 250}, Told(percent=100)),
        ({"progressPercentage": -3.5}, Told(percent=0)),
        ({"progressPercentage": "40"}, Told()),
        ({"progressPercentage": True}, Told()),
        ({"estimatedRemainingSeconds": 1.5}, Told(eta_seconds=1.5)),
        ({"estimatedRemainingSeconds": -1}, Told()),
        ({"metrics": {"a": 1, "b": None, "c" * 65: 1, "d": [1]}}, Told(metrics=(Metric(name="a", value=1.0),))),
        ({"metrics": [1]}, Told()),
        ([1], Told()),
    ],
)
def test_what_makes_no_sense_is_left_out(tmp_path: Path, body: Any, expected: Told) -> None:
    assert told(tmp_path, json.dumps(body)) == expected


def test_no_file_tells_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == Told()
    assert read(tmp_path) == Told()


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["metrics", "progressPercentage", "estimatedRemainingSeconds", "x"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_it_writes_becomes_a_report(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    found = told(tmp_path_factory.mktemp("told"), data)
    report = Report(job=found.report())
    assert reports.decode(reports.encode(report)) == report


def test_many_metrics_fit_into_a_report(tmp_path: Path) -> None:
    body = {"metrics": {f"{number:03d}" + "ü" * 61: 1.23456789e-123 for number in range(50)}}
    found = told(tmp_path, json.dumps(body))
    assert len(found.metrics) == 16
    reports.encode(Report(job=found.report()))


def test_only_a_regular_file_is_read_and_its_end_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert content(tmp_path / "file", 4) == b"6789"
    os.mkfifo(tmp_path / "fifo")  # whoever opened it would wait for ever
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert [content(tmp_path / name, 4) for name in ("fifo", "link", ".", "nothing")] == [None] * 4
    assert read(tmp_path / "fifo") == Told()
