"""`modelyard requests` reads the gateway's log."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.cli import main, requests

Run = Callable[..., list[str]]


def line(number: int, **others: Any) -> str:
    entry = {
        "time": f"2026-01-02T03:04:{number:02}.000Z",
        "id": f"id-{number}",
        "method": "POST",
        "path": "/v2/models/iris/infer",
        "model": "iris.default",
        "revision": "iris-svc-00001.default",
        "status": 200,
        "milliseconds": 12,
    }
    return json.dumps({key: value for key, value in (entry | others).items() if value is not None})


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / ".modelyard" / "server" / "access.log"
    path.parent.mkdir(parents=True)
    (path.parents[1] / "kubeconfig").touch()
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def run(log: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> list[str]:
        assert main(["requests", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def ids(lines: list[str]) -> list[str]:
    return [each.split()[-1] for each in lines[1:]]


def test_the_last_requests_of_both_files_are_shown(log: Path, run: Run) -> None:
    log.with_name("access.log.1").write_text(line(1) + "\n" + line(2) + "\n")
    log.write_text(line(3, user="corp:ana") + "\n")
    shown = run("--tail", "2")
    assert shown[0].split() == ["TIME", "STATUS", "MS", "REVISION", "CALLER", "REQUEST", "ID"]
    assert ids(shown) == ["id-2", "id-3"]
    assert shown[2].split() == [
        "2026-01-02T03:04:03.000Z", "200", "12", "iris-svc-00001", "corp:ana", "POST", "/v2/models/iris/infer", "id-3",
    ]  # fmt: skip
    assert ids(run("--tail", "0")) == []


def test_one_service_is_chosen_also_by_the_path_where_it_is_not_there(log: Path, run: Run) -> None:
    lines = [
        line(1),
        line(2, model="iris.shop"),
        line(3, model="wine.default"),
        line(4, model=None, status=404),
        line(5, model=None, path="/v2/models/iris.default", status=403),
        line(6, model=None, path="/v2/models/iris.shop", status=403),
        line(7, model=None, path="/v2"),
    ]
    log.write_text("\n".join(lines) + "\n")
    assert ids(run("iris")) == ["id-1", "id-4", "id-5"]
    assert ids(run("iris", "-n", "shop")) == ["id-2", "id-6"]
    assert ids(run("iris", "--failed")) == ["id-4", "id-5"]


def test_failures_of_grpc_count_and_are_told(log: Path, run: Run) -> None:
    log.write_text(line(1, grpcStatus=0) + "\n" + line(2, grpcStatus=5) + "\n")
    (_, shown) = run("--failed")
    assert shown.split()[1] == "200/5"


def test_programs_get_whole_lines(log: Path, run: Run) -> None:
    log.write_text(line(1, agent="é\x1b[2J") + "\n")
    (shown,) = run("-o", "json")
    assert json.loads(shown) == json.loads(line(1, agent="é\x1b[2J"))
    assert shown.isascii()
    assert shown.isprintable()


def test_a_caller_cannot_write_to_the_terminal_of_who_looks(log: Path, run: Run) -> None:
    log.write_text(line(1, user="\x1b]0;title\x07\n", path="/\u202e") + "\n")
    assert len(shown := run()) == 2
    assert shown[1].isprintable()


def test_what_is_no_entry_is_left_out(log: Path, run: Run) -> None:
    bad = [b"nonsense", b"[1]", b"\xff\xfe", b"[" * 5000, b"{}" + b" " * 100_000, b""]
    log.write_bytes(b"\n".join([*bad, line(1).encode(), b'{"cut": ']))
    assert ids(run()) == ["id-1"]


def test_without_a_log_the_next_step_is_said(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["requests"]) == 1
    assert "modelyard up" in capsys.readouterr().err


def test_following_goes_on_in_the_next_file_without_losing_a_line(log: Path, stack: ExitStack) -> None:
    def more() -> list[str]:
        return [str(each["id"]) for each in found.more()]

    found = stack.enter_context(closing(requests.Log(log, lambda _: True)))
    assert list(found.last(5)) == []
    assert more() == []
    log.write_text(line(1) + "\n")
    assert more() == ["id-1"]
    with log.open("a") as source:
        log.rename(log.with_name("access.log.1"))
        log.touch()
        source.write(line(2)[:20])
        source.flush()
        assert more() == []
        source.write(line(2)[20:] + "\n")
        source.flush()
        assert more() == ["id-2"]
        source.write(line(3) + "\n")
    log.write_text(line(4) + "\n")
    assert more() == ["id-3"]
    assert more() == ["id-4"]


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(str).map(str.encode))
def test_whatever_a_line_holds_it_is_an_entry_or_nothing(text: bytes) -> None:
    found = requests.parse(text)
    assert found is None or isinstance(found, dict)
