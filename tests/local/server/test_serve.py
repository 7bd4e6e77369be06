"""`modelyard serve`: one file, without a server."""

import json
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from yard_testing import MODELYARD, wait_until, write_onnx


def test_a_file_is_served_until_ctrl_c_and_nothing_is_left(tmp_path: Path) -> None:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*MODELYARD, "serve", "plus.onnx", "--port", "0"], cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: "Ctrl-C stops" in log.read_text() or process.poll() is not None, "serving")
        found = re.search(r"POST (http://\S+)/infer", log.read_text())
        assert found, log.read_text()
        body = {"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
        request = urllib.request.Request(f"{found[1]}/infer", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["outputs"][0]["data"] == [2.0, 3.0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "plus.onnx"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere.onnx"], "there is nothing at"),
        (["half.onnx"], "cut off"),
        (["plus.onnx", "--name", "Not A Name"], "give --name"),
        (["code.pkl"], "--trust pickle"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(tmp_path: Path, arguments: list[str], expected: str) -> None:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    (tmp_path / "half.onnx").write_bytes((tmp_path / "plus.onnx").read_bytes()[:40])
    (tmp_path / "code.pkl").write_bytes(b"\x80\x04cos\nabort\n(tR.")
    done = subprocess.run(
        [*MODELYARD, "serve", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
