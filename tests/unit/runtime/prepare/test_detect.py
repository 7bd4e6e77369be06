import io
import json
import lzma
import pickle
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.prepare.detect import Detected, candidate, detect


def onnx_bytes() -> bytes:
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", info[:1], info[1:])
    imports = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="test")
    return bytes(model.SerializeToString())


def skops_bytes(schema: object = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema or {"__loader__": "ObjectNode", "protocol": 2}))
    return file.getvalue()


def joblib_bytes(compress: object = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump({"weights": np.arange(100.0)}, file, compress=compress)
    return file.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.bin"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (onnx_bytes(), Detected("onnx", "17")),
        (skops_bytes(), Detected("skops")),
        (joblib_bytes(), Detected("joblib")),
        (joblib_bytes(3), Detected("joblib")),
        *((joblib_bytes((kind, 3)), Detected("joblib")) for kind in ("gzip", "bz2", "xz", "lzma")),
        *((pickle.dumps({"a": 1}, protocol), Detected("pickle")) for protocol in (2, 3, 4, 5)),
    ],
)
def test_a_format_is_told_from_the_bytes_whatever_the_name(file: Path, content: bytes, expected: Detected) -> None:
    file.write_bytes(content)
    assert detect(file) == expected


@pytest.mark.parametrize("content", [onnx_bytes(), skops_bytes(), joblib_bytes(), pickle.dumps([1.5] * 30)])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_file_that_is_cut_off_is_invalid_and_not_unknown(file: Path, content: bytes, share: float) -> None:
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(LoadFailed, match="save or copy it again") as caught:
        detect(file)
    assert caught.value.reason == Reason.ARTIFACT_INVALID


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"PK\x05\x06" + bytes(18),
        zlib.compress(b"text"),
        lzma.compress(b"text"),
        b"\x08\x07",
        b"\x80\x09.",
        b"x",
    ],
)
def test_anything_else_is_unknown_and_the_known_ones_are_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(LoadFailed, match="joblib, onnx, pickle, skops") as caught:
        detect(file)
    assert caught.value.reason == Reason.FORMAT_UNKNOWN


def test_other_zip_files_are_no_skops_files(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.ini", "")
    with pytest.raises(LoadFailed, match=r"without schema\.json"):
        detect(file)
    file.write_bytes(skops_bytes([1]))
    with pytest.raises(LoadFailed, match="that skops did not write"):
        detect(file)


def test_an_empty_file_is_invalid(file: Path) -> None:
    file.touch()
    with pytest.raises(LoadFailed, match="is empty"):
        detect(file)


@given(st.data())
def test_no_bytes_break_the_detector(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    start = data.draw(
        st.sampled_from([b"", b"\x08\x08", b"PK\x03\x04", b"\x80\x04", b"\x1f\x8b", b"x\x9c", onnx_bytes()])
    )
    content = bytearray(start + data.draw(st.binary(max_size=60)))
    if content:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert detect(path).format
    except LoadFailed as error:
        assert error.reason in (Reason.ARTIFACT_INVALID, Reason.FORMAT_UNKNOWN)  # noqa: PT017  both outcomes are right


def test_a_folder_is_told_by_its_only_model_file(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(LoadFailed, match="holds no model") as caught:
        candidate(tmp_path, "")
    assert caught.value.reason == Reason.ARTIFACT_UNREADABLE
    (tmp_path / "a.onnx").touch()
    (tmp_path / "weights.data").touch()
    assert candidate(tmp_path, "").name == "a.onnx"
    (tmp_path / "b.skops").touch()
    assert candidate(tmp_path, "skops").name == "b.skops"
    with pytest.raises(LoadFailed, match=r"holds 2 models: a\.onnx, b\.skops"):
        candidate(tmp_path, "")
