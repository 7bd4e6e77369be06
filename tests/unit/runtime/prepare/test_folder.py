"""What model.json says is used where nothing was declared."""

import json
from pathlib import Path

import pytest

from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.prepare.folder import completed
from modelyard.wire.work import PrepareWork, TensorSpec

X = {"name": "X", "datatype": "FP32", "shape": [-1, 4]}


def folder(tmp_path: Path, body: object) -> Path:
    text = body if isinstance(body, str) else json.dumps(body)
    (tmp_path / "model.json").write_text(text)
    return tmp_path


def test_it_completes_what_was_left_out(tmp_path: Path) -> None:
    path = folder(tmp_path, {"format": "onnx", "inputs": [X], "metrics": {"accuracy": 0.9}, "future": 1})
    found = completed(PrepareWork(uri="m"), path)
    assert found == PrepareWork(uri="m", format="onnx", inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 4)),))


def test_what_was_declared_wins(tmp_path: Path) -> None:
    declared = PrepareWork(uri="m", format="skops", inputs=(TensorSpec(name="Y", datatype="FP64", shape=(-1, 1)),))
    assert completed(declared, folder(tmp_path, {"format": "onnx", "inputs": [X]})) == declared


def test_a_file_or_a_folder_without_it_adds_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert completed(PrepareWork(uri="m"), tmp_path) == PrepareWork(uri="m")
    assert completed(PrepareWork(uri="m"), tmp_path / "m.onnx") == PrepareWork(uri="m")


@pytest.mark.parametrize(
    "body", ["", "[]", '{"inputs": [{"name": 1}]}', "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")]
)
def test_one_that_cannot_be_read_is_named(tmp_path: Path, body: str) -> None:
    with pytest.raises(LoadFailed, match=r"model\.json"):
        completed(PrepareWork(uri="m"), folder(tmp_path, body))
