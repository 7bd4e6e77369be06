import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modelyard.cli import main
from sdk_testing import Gateway, gateway


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.chdir(tmp_path)
    with gateway() as found:
        yield found


def test_rows_go_in_and_a_table_comes_out(server: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "digits", "--url", server.url, "--data", "[[7, 1], [8, 2]]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["label", "probabilities[0]", "probabilities[1]"]
    assert lines[1].split() == ["7", "0.25", "0.75"]
    assert lines[2].split()[0] == "8"


def test_rows_come_from_files_and_stdin(
    server: Gateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("x.npy", np.array([[1.0, 2.0]]))
    Path("x.csv").write_text("a,b\n1,2\n")
    Path("x.json").write_text("[1, 2]")
    for file in ("x.npy", "x.csv", "x.json", "-"):
        monkeypatch.setattr("sys.stdin", io.StringIO("[[1, 2]]"))
        assert main(["predict", "digits", "--url", server.url, "--file", file, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["label"] == [1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("rows", [1, 9000])
def test_curl_sends_the_same_request(server: Gateway, capsys: pytest.CaptureFixture[str], rows: int) -> None:
    np.save("x.npy", np.ones((rows, 2)))
    assert main(["predict", "digits", "--url", server.url, "--file", "x.npy", "--curl"]) == 0
    assert server.requests[-1][0] == "GET"  # nothing was sent to the model
    command = capsys.readouterr().out
    assert command.startswith("curl ")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outputs"][0]["data"] == [1] * rows


def test_a_namespace_is_part_of_the_name(server: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    server.models["digits.team"] = server.models["digits"]
    arguments = ["predict", "digits", "--url", server.url, "-n", "team", "--data", "[1, 2]"]
    assert main(arguments) == 0, capsys.readouterr().err
    assert server.requests[-1][1] == "/v2/models/digits.team/infer"


def test_an_unknown_model_is_said_in_the_servers_words(server: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "nope", "--url", server.url, "--data", "[1]"]) == 1
    assert capsys.readouterr().err == "error: there is no model nope\n"
