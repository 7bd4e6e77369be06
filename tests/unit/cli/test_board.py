import io
from typing import Any

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


def test_other_kinds_are_not_shown() -> None:
    out = io.StringIO()
    Board(out).changed("Runtime", ("default", "r"), _model("True"))
    assert out.getvalue() == ""
