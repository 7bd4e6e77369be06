import io
from typing import Any

from modelyard.base.clock import ManualClock
from modelyard.cli.board import Board


def _model(ready: str, message: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": "digits", "namespace": "default"},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Because", "message": message}]},
    }


def test_every_change_of_readiness_is_one_line_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    board = Board(out)
    with board.live():
        board.changed("Model", ("default", "digits"), _model("False", "reading it"))
        board.changed("Model", ("default", "digits"), _model("False", "reading it"))
        board.changed("Model", ("team", "digits"), _model("True", "content [red]sha256"))
        board.changed("Model", ("default", "digits"), None)
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "Model digits: Ready=False  Because  reading it",
        "Model team/digits: Ready=True  Because  content [red]sha256",
        "Model digits: deleted",
    ]


def test_only_the_first_line_of_a_long_message_is_shown() -> None:
    out = io.StringIO()
    Board(out).changed("Model", ("default", "digits"), _model("False", "it crashed; its last lines:\nboom\nbang"))
    assert out.getvalue().count("\n") == 1
    assert "modelyard why digits" in out.getvalue()


def _job(reason: str, percent: int = 0, failed: int = 0, status: str = "False") -> dict[str, Any]:
    conditions = [{"type": "Complete", "status": status, "reason": reason, "message": "as said"}]
    return {
        "kind": "ModelJob",
        "metadata": {"name": "score", "namespace": "default"},
        "status": {"conditions": conditions, "progressPercentage": percent, "failed": failed},
    }


def test_numbers_of_a_job_are_said_every_two_seconds_and_states_at_once() -> None:
    out = io.StringIO()
    clock = ManualClock()
    board = Board(out, clock.monotonic)
    for seconds, body in (
        (0.0, _job("ModelNotFound")),
        (0.1, _job("Running", 1)),
        (0.1, _job("Running", 2)),
        (1.8, _job("Running", 49)),
        (0.1, _job("Running", 50)),
        (0.1, _job("Running", 51, failed=1)),
        (0.1, _job("Completed", 100, status="True")),
    ):
        clock.advance(seconds)
        board.changed("ModelJob", ("default", "score"), body)
    lines = [line.split(" ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "ModelJob score: Waiting  ModelNotFound  as said",
        "ModelJob score: Running  1%",
        "ModelJob score: Running  50%",
        "ModelJob score: Running  51%  1 failure",
        "ModelJob score: Complete  done",
    ]


def test_other_kinds_are_not_shown() -> None:
    out = io.StringIO()
    Board(out).changed("Runtime", ("default", "r"), _model("True"))
    assert out.getvalue() == ""


def _stream(status: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "ModelStream",
        "metadata": {"name": "fraud", "namespace": "default"},
        "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]},
    }


def test_of_a_stream_only_states_are_news() -> None:
    out = io.StringIO()
    clock = ManualClock()
    board = Board(out, clock.monotonic)
    for body in (
        _stream("False", "Starting", "0 of 1 runners ready"),
        _stream("True", "Following", "1 partition, 9 messages waiting"),
        _stream("True", "Following", "1 partition, 0 messages waiting"),
        _stream("False", "BrokerUnreachable", "no answer"),
    ):
        clock.advance(60)
        board.changed("ModelStream", ("default", "fraud"), body)
    lines = [line.split(": ", 1)[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "Ready=False  Starting  0 of 1 runners ready",
        "Ready=True  Following  1 partition, 9 messages waiting",
        "Ready=False  BrokerUnreachable  no answer",
    ]
