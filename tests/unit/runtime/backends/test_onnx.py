import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import front_testing
from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.runtime.backends.onnx import OnnxBackend
from modelyard.runtime.backends.port import LoadFailed
from modelyard.wire.work import TensorSpec


async def refused(path: Path) -> LoadFailed:
    with pytest.raises(LoadFailed) as caught:
        await OnnxBackend.open(path, 1)
    assert "\n" not in caught.value.message
    return caught.value


async def test_the_signature_is_the_models_own(tmp_path: Path) -> None:
    backend = await OnnxBackend.open(front_testing.linear(tmp_path / "m.onnx"), 1)
    assert backend.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    assert backend.outputs == (TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),)
    await backend.close()
    await backend.close()


@pytest.mark.parametrize(
    ("kind", "datatype", "dtype"),
    [
        (TensorProto.FLOAT16, "FP16", np.float16),
        (TensorProto.DOUBLE, "FP64", np.float64),
        (TensorProto.BOOL, "BOOL", np.bool_),
        (TensorProto.UINT64, "UINT64", np.uint64),
        (TensorProto.INT8, "INT8", np.int8),
    ],
)
async def test_every_datatype_goes_through(tmp_path: Path, kind: int, datatype: str, dtype: type[np.generic]) -> None:
    backend = await OnnxBackend.open(front_testing.identity(tmp_path / "m.onnx", kind), 1)
    assert backend.inputs[0].datatype == datatype
    found = await backend.infer({"x": np.ones((3, 2), dtype)})
    assert found["y"].dtype == np.dtype(dtype)
    assert found["y"].shape == (3, 2)
    await backend.close()


async def test_text_is_bytes_on_both_sides(tmp_path: Path) -> None:
    backend = await OnnxBackend.open(front_testing.identity(tmp_path / "m.onnx", TensorProto.STRING), 1)
    found = await backend.infer({"x": np.array([["é".encode(), b""]], object)})
    assert found["y"].tolist() == [["é".encode(), b""]]
    with pytest.raises(UserError, match="input 'x': expected UTF-8 text"):
        await backend.infer({"x": np.array([[b"\xff", b""]], object)})
    await backend.close()


async def test_values_that_the_model_refuses_are_a_users_error_in_one_line(tmp_path: Path) -> None:
    backend = await OnnxBackend.open(front_testing.lookup(tmp_path / "m.onnx"), 1)
    with pytest.raises(UserError, match="the model refused the values: ") as caught:
        await backend.infer({"x": np.array([7])})
    assert "\n" not in caught.value.message
    assert "/onnxruntime" not in caught.value.message
    assert (await backend.infer({"x": np.array([2])}))["y"].tolist() == [30]
    await backend.close()


@pytest.mark.parametrize("content", [b"", b"not a model", None])
async def test_a_damaged_file_is_told_as_damaged(tmp_path: Path, content: bytes | None) -> None:
    path = front_testing.linear(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    error = await refused(path)
    assert error.reason == Reason.ARTIFACT_INVALID
    assert error.message.startswith("m.onnx is truncated, damaged or not an ONNX model: ")


async def test_an_operator_that_does_not_exist_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    kinds = [front_testing.tensor(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Nonsense", ["x"], ["y"])], "g", kinds[:1], kinds[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    error = await refused(path)
    assert "Nonsense" in error.message


async def test_a_map_as_output_is_refused_and_the_option_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(maps))
    graph = helper.make_graph([node], "g", [front_testing.tensor("x", TensorProto.FLOAT, [None, 2])], [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    error = await refused(path)
    assert error.reason == Reason.UNSUPPORTED
    assert "output 'y'" in error.message
    assert "`zipmap: False`" in error.message


async def test_a_folder_must_hold_one_model(tmp_path: Path) -> None:
    assert "holds 0 files named *.onnx" in (await refused(tmp_path)).message
    front_testing.linear(tmp_path / "a.onnx")
    backend = await OnnxBackend.open(tmp_path, 1)
    await backend.close()
    front_testing.linear(tmp_path / "b.onnx")
    assert "holds 2 files named *.onnx" in (await refused(tmp_path)).message


def test_onnx_runtime_tells_its_maker_nothing(tmp_path: Path) -> None:
    """It would leave the id of this machine in the cache folder of the home, and send names of models."""
    script = (
        "import os; from modelyard.runtime.backends.onnx import OnnxBackend; "
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    )
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", script], env=home, check=True, timeout=60)
    assert not list(tmp_path.rglob("DeveloperTools"))
