"""ONNX Runtime inside this process. It releases the GIL while a model runs."""

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

# From 1.29 on it tells its maker the names of models, unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as states

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends.port import Array, LoadFailed, Tensors
from modelyard.wire.work import TensorSpec

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxBackend:
    """One session and the one thread that runs it."""

    def __init__(self, session: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._session = session
        self._output_names = [spec.name for spec in outputs]
        self._text_inputs = tuple(spec.name for spec in inputs if spec.datatype == "BYTES")
        self._text_outputs = frozenset(spec.name for spec in outputs if spec.datatype == "BYTES")
        self._thread = _Thread(self._run)

    @classmethod
    async def open(cls, path: Path, threads: int) -> "OnnxBackend":
        """Load `path`, an ONNX file or a folder with exactly one (external data beside it).

        threads: of ONNX Runtime within one operator. Raises LoadFailed: ArtifactInvalid for bytes that are not a model,
        Unsupported for a model that does not take and give tensors.
        """
        session = await asyncio.to_thread(_session, _model_file(path), threads)
        inputs = [_spec("input", node) for node in session.get_inputs()]
        outputs = [_spec("output", node) for node in session.get_outputs()]
        return cls(session, inputs, outputs)

    async def infer(self, inputs: Tensors) -> Tensors:
        """See `Backend.infer`. Raises UserError when the model refuses the values."""
        return await self._thread.call(inputs)

    async def close(self) -> None:
        """See `Backend.close`."""
        self._thread.close()

    def _run(self, inputs: Mapping[str, Array]) -> Tensors:
        if self._text_inputs:
            inputs = {**inputs, **{name: _decoded(name, inputs[name]) for name in self._text_inputs}}
        try:
            found = self._session.run(self._output_names, inputs)
        except MemoryError as error:
            raise RetryLater("the model found no memory for this request; send fewer rows at a time") from error
        except Exception as error:  # ONNX Runtime's own exceptions share no base class
            raise _refusal(error) from error
        outputs = dict(zip(self._output_names, found, strict=True))
        for name in self._text_outputs:
            outputs[name] = _encoded(outputs[name])
        return outputs


class _Thread:
    """Runs one function, in order of the calls, beside the event loop.

    A ThreadPoolExecutor does the same for twice the time (45 against 26 us of CPU), which a tiny model does not take.
    The thread is a daemon: a call that nobody waits for any more must not hold up the end of the process.
    """

    def __init__(self, run: Callable[[Tensors], Tensors]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[asyncio.Future[Tensors], Tensors] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="onnx", daemon=True).start()

    def call(self, inputs: Tensors) -> asyncio.Future[Tensors]:
        """What the function returns or raises."""
        future: asyncio.Future[Tensors] = self._loop.create_future()
        self._calls.put((future, inputs))
        return future

    def close(self) -> None:
        """End the thread after the calls before; idempotent."""
        self._calls.put(None)

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """A call of its own, so that the last batch is not kept until the next one."""
        call = self._calls.get()
        if call is None:
            return False
        future, inputs = call
        found: Tensors | Exception
        try:
            found = self._run(inputs)
        except Exception as error:  # whatever it is, the caller is told
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(_settle, future, found)
        return True


def _settle(future: asyncio.Future[Tensors], found: Tensors | Exception) -> None:
    if future.done():
        return  # cancelled
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


def _session(file: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # an arena keeps what the largest batch took, for good
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads burn no CPU
    options.log_severity_level = 4  # what goes wrong is raised too
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except (states.InvalidProtobuf, states.InvalidGraph, states.NoSuchFile, states.NoModel) as error:
        raise _damaged(file, error) from error
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        if isinstance(error, states.InvalidArgument) and "No graph was found" in str(error):
            raise _damaged(file, error) from error
        message = f"ONNX Runtime {onnxruntime.__version__} cannot load {file.name}: {_one_line(error)}"
        raise LoadFailed(Reason.LOAD_FAILED, message) from error


def _damaged(file: Path, error: Exception) -> LoadFailed:
    return LoadFailed(
        Reason.ARTIFACT_INVALID,
        f"{file.name} is truncated, damaged or not an ONNX model: {_one_line(error)}; write or copy the file again",
    )


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        raise LoadFailed(
            Reason.ARTIFACT_INVALID, f"{path.name} holds {len(found)} files named *.onnx; expected exactly one"
        )
    return found[0]


def _spec(role: str, node: Any) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        advice = "; convert the model with the option `zipmap: False`" if "map(" in node.type else ""
        raise LoadFailed(
            Reason.UNSUPPORTED,
            f"{role} {node.name!r} is a {node.type}, and only tensors of {', '.join(_DATATYPES.values())} "
            f"can be served{advice}",
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)


def _decoded(name: str, array: Array) -> Array:
    try:
        texts = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError:
        raise UserError(f"input {name!r}: expected UTF-8 text") from None
    decoded: Array = np.empty(len(texts), object)
    decoded[:] = texts
    return decoded.reshape(array.shape)


def _encoded(array: Array) -> Array:
    encoded: Array = np.empty(array.size, object)
    encoded[:] = [str(element).encode() for element in array.ravel()]
    return encoded.reshape(array.shape)


def _refusal(error: Exception) -> UserError | RetryLater:
    text = _one_line(error)
    if re.search(r"fail\w* to allocate|bad.?alloc", text, re.IGNORECASE):
        return RetryLater("the model found no memory for this request; send fewer rows at a time")
    return UserError(f"the model refused the values: {text}")


def _one_line(error: Exception) -> str:
    """ONNX Runtime's own message without its prefixes, source positions and line breaks."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"/\S+\.(?:cc|h|cpp):\d+ ", "", text)
    return " ".join(text.split())[:500]
