import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.drivers.processes import log as logs
from modelyard.control.drivers.processes.log import Log
from modelyard.testing.driver_rig import IRIS


def test_two_files_of_bounded_size_hold_the_newest_output(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = Log(path, max_bytes=10)
    for word in (b"01234", b"56789abcdefghijklm", b"n"):
        log.write(word)
    log.close()
    assert [each.read_bytes() for each in logs.files(path)] == [b"abcdefghij", b"klmn"]


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    for text in (b"one\n", b"two\n"):
        log = Log(path)
        log.write(text)
        log.close()
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_tail_is_of_the_current_process_without_control_characters(tmp_path: Path) -> None:
    log = Log(tmp_path / "x.log")
    log.write(b"before\n")
    log.start()
    log.write(b"\x1b[31mred\x1b[0m\r\n\n" + b"\n".join(b"%d" % number for number in range(9)))
    log.close()
    assert log.tail() == "red\n" + "\n".join(map(str, range(9)))


@given(st.lists(st.binary(max_size=4000), max_size=20))
def test_the_tail_is_bounded_whatever_is_written(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    log = Log(tmp_path_factory.mktemp("log") / "x.log", max_bytes=1000)
    for part in parts:
        log.write(part)
    log.close()
    tail = log.tail()
    assert len(tail) <= 1500
    assert tail.count("\n") <= 9
    assert all(letter.isprintable() or letter in "\n\t" or ord(letter) > 127 for letter in tail)


def test_output_that_cannot_be_written_is_not_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Log(tmp_path / "absent" / "x.log")
    log.write(b"one\n")
    log.write(b"two\n")
    assert log.tail() == "one\ntwo"
    assert len(caplog.records) == 1
    (tmp_path / "absent").mkdir()
    log.write(b"three\n")
    log.close()
    assert (tmp_path / "absent" / "x.log").read_text() == "three\n"


def test_the_sentence_about_a_log_says_where_more_is(tmp_path: Path) -> None:
    log = Log(tmp_path / "x.log")
    assert logs.said(log, IRIS) == "; it wrote nothing to its log"
    log.write(b"boom\n")
    log.close()
    assert logs.said(log, IRIS) == "; 'modelyard logs iris' shows its log, which ends with:\nboom"


def test_only_the_newest_logs_of_what_has_ended_stay(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c", "live")):
        for path in (tmp_path / f"{name}.log", tmp_path / f"{name}.log.1"):
            path.touch()
            os.utime(path, (number, number))
    os.utime(tmp_path / "live.log", (0, 0))
    logs.prune(tmp_path, keep=frozenset({"live"}), most=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.log", "c.log.1", "live.log", "live.log.1"]
