"""The worker for scikit-learn models: protocol 1 of `spec/worker-protocol.md`.

One file with nothing but the standard library, numpy and the model's own libraries, so that it runs in any
environment that a model needs. What loading may do follows from the format and `trust`, never from the artifact:

* skops: types of scikit-learn, numpy and scipy that are known to be data. Trees and other structures whose indices
  scikit-learn follows without bounds checks need `trust: pickle`: a crafted file can crash or take over the process.
* joblib and pickle: loading runs code from the file, so they need `trust: pickle` as well.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import lzma
import os
import pickle
import select
import signal
import struct
import sys
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from io import RawIOBase
from typing import IO, Any

import numpy as np

PROTOCOL = "1"
HELLO, READY, INFER, RESULT, ERROR = range(1, 6)
HEADER = struct.Struct("<QIB3x")
COUNTS = struct.Struct("<II")
TENSOR = struct.Struct("<HBB4xQ")
DTYPES = ("?", "u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
NAMES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES"),
)
INT64, FP64, BYTES = (NAMES.index(name) + 1 for name in ("INT64", "FP64", "BYTES"))

Array = np.ndarray[Any, Any]
Tensor = tuple[str, int, Array]  # name, number of the datatype, array
Message = tuple[int, int, list[tuple[str, str]], list[Tensor]]  # kind, number, texts, tensors

TRUSTED_PACKAGES = {"builtins", "collections", "numpy", "scipy", "sklearn"}
# Plain Python classes that only training uses.
TRUSTED_TYPES = {
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
}
# Whatever the installed release of skops thinks of them: some trust trees.
UNCHECKED_MODULES = (
    "sklearn.tree._tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor",
    "sklearn.neighbors._kd_tree",
    "sklearn.neighbors._ball_tree",
)
DAMAGED = (EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, json.JSONDecodeError)


class Refused(Exception):
    """A sentence for the model's owner or the caller."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Channel:
    """Frames on two descriptors."""

    def __init__(self, source: RawIOBase, sink: IO[bytes]) -> None:
        self.source = source
        self.sink = sink

    def read(self) -> Message | None:
        """The next frame, or None when the server is gone."""
        header = self._exactly(HEADER.size)
        if header is None:
            return None
        size, number, kind = HEADER.unpack(header)
        body = self._exactly(size)
        if body is None:
            return None
        text_count, tensor_count = COUNTS.unpack_from(body)
        position = COUNTS.size
        texts: list[tuple[str, str]] = []
        tensors: list[Tensor] = []
        for _ in range(text_count):
            key, text = COUNTS.unpack_from(body, position)
            start = position + COUNTS.size
            texts.append((body[start : start + key].decode(), body[start + key : start + key + text].decode()))
            position = start + padded(key + text)
        for _ in range(tensor_count):
            name, datatype, dimensions, size = TENSOR.unpack_from(body, position)
            position += TENSOR.size
            shape = struct.unpack_from(f"<{dimensions}q", body, position)
            position += 8 * dimensions
            label = body[position : position + name].decode()
            position += padded(name)
            tensors.append((label, datatype, to_array(datatype, shape, memoryview(body)[position : position + size])))
            position += padded(size)
        return kind, number, texts, tensors

    def write(
        self, kind: int, number: int = 0, texts: Sequence[tuple[str, str]] = (), tensors: Sequence[Tensor] = ()
    ) -> None:
        pieces = [COUNTS.pack(len(texts), len(tensors))]
        for key, text in texts:
            both = key.encode() + text.encode("utf-8", "replace")
            pieces += [COUNTS.pack(len(key.encode()), len(both) - len(key.encode())), both, bytes(-len(both) % 8)]
        for name, datatype, array in tensors:
            label = name.encode()
            data = to_bytes(datatype, array)
            pieces.append(TENSOR.pack(len(label), datatype, array.ndim, len(data)))
            pieces.append(struct.pack(f"<{array.ndim}q", *array.shape))
            pieces += [label, bytes(-len(label) % 8), data, bytes(-len(data) % 8)]
        self.sink.write(b"".join([HEADER.pack(sum(map(len, pieces)), number, kind), *pieces]))
        self.sink.flush()

    def _exactly(self, size: int) -> bytearray | None:
        data = bytearray(size)  # writable: some estimators insist on that
        view = memoryview(data)
        while view:
            count = self.source.readinto(view)
            if not count:
                return None
            view = view[count:]
        return data


def padded(size: int) -> int:
    return size + -size % 8


def to_array(datatype: int, shape: Sequence[int], data: memoryview) -> Array:
    if datatype != BYTES:
        return np.frombuffer(data, DTYPES[datatype - 1]).reshape(shape)
    array = np.empty(int(np.prod(shape)), object)
    position = 0
    for index in range(len(array)):
        start = position + 4
        position = start + int.from_bytes(data[position:start], "little")
        array[index] = bytes(data[start:position])
    return array.reshape(shape)


def to_bytes(datatype: int, array: Array) -> bytes:
    if datatype != BYTES:
        return np.ascontiguousarray(array, DTYPES[datatype - 1]).tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in array.ravel())


def spec(name: str, datatype: int, trailing: Iterable[int]) -> str:
    """An input or output in the words of the protocol: `FP64 -1,4 X`."""
    return f"{NAMES[datatype - 1]} {','.join(map(str, (-1, *trailing)))} {name}"


def load(path: str, kind: str, trusted: bool) -> Any:
    """The object in the file; raises Refused."""
    if kind in ("joblib", "pickle") and not trusted:
        raise Refused(
            "TrustRequired",
            f"loading a {kind} file runs whatever code is in it; set `trust: pickle` if you trust its author like "
            "yourself, or save the model with skops or as ONNX",
        )
    require("sklearn", "scikit-learn")
    try:
        if kind == "skops":
            return load_skops(path, trusted)
        return require("joblib", "joblib").load(path)  # reads plain pickles, too
    except Refused:
        raise
    except DAMAGED as error:
        raise Refused("ArtifactInvalid", f"the {kind} file is truncated or damaged: {sentence(error)}") from error
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise missing(package, package) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, ValueError) and str(error).startswith("EOF"):
            raise Refused("ArtifactInvalid", f"the {kind} file is truncated: {sentence(error)}") from error
        advice = ""
        if isinstance(error, AttributeError) and "__main__" in str(error):
            advice = "; the class is defined in a notebook or script: move it into a package that is installed here"
        raise Refused("LoadFailed", f"the model cannot be loaded: {sentence(error)}{advice}") from error


def load_skops(path: str, trusted: bool) -> Any:
    io = require("skops.io", "skops")
    untrusted = io.get_untrusted_types(file=path)
    if not trusted:
        refused = sorted({*untrusted, *unchecked(path)} - TRUSTED_TYPES)
        if refused:
            raise Refused(
                "TrustRequired",
                f"the file holds {', '.join(refused[:5])}{' and more' if len(refused) > 5 else ''}, which "
                f"{'is' if len(refused) == 1 else 'are'} loaded without checks of the content: a crafted file can "
                "crash or take over the process; set `trust: pickle` if you trust its author like yourself, or save "
                "the model as ONNX",
            )
    return io.load(path, trusted=untrusted)


def unchecked(path: str) -> set[str]:
    """Types in the file that are refused whatever skops thinks of them."""
    with zipfile.ZipFile(path) as archive:
        todo = [json.loads(archive.read("schema.json"))]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            module = node.get("__module__")
            if isinstance(module, str) and (
                module.partition(".")[0] not in TRUSTED_PACKAGES or module.startswith(UNCHECKED_MODULES)
            ):
                found.add(f"{module}.{node.get('__class__')}")
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return found


def require(module: str, package: str) -> Any:
    """Import a module of the model's environment."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(error.name.partition(".")[0] if error.name else module, package) from error


def missing(module: str, package: str) -> Refused:
    wanted = {"sklearn": "scikit-learn skops", "skops": "scikit-learn skops"}.get(module, package)
    return Refused(
        "EnvironmentMissing",
        f"the model needs {module}, which is not installed for {sys.executable}; "
        f"run `{sys.executable} -m pip install {wanted}`",
    )


class Model:
    """A scikit-learn estimator with its signature, found out by scoring one row of zeros."""

    def __init__(self, estimator: Any, declared: list[str]) -> None:
        if not callable(getattr(estimator, "predict", None)):
            raise Refused(
                "Unsupported",
                f"a {type(estimator).__name__} has no method predict; save the fitted estimator or pipeline",
            )
        self.estimator = estimator
        name, datatype, trailing = input_of(estimator, declared)
        self.input = spec(name, datatype, trailing)
        shape = (1, *map(abs, trailing))
        zeros = np.full(shape, b"", object) if datatype == BYTES else np.zeros(shape, DTYPES[datatype - 1])
        classifier = hasattr(estimator, "classes_")
        self.label = "label" if classifier else "predictions"
        self.probabilities = False
        try:
            outputs = self.infer({name: zeros})
            if classifier and hasattr(estimator, "predict_proba"):
                # A multi-output classifier gives a list of arrays, which have no common shape.
                self.probabilities = isinstance(estimator.predict_proba(texts(zeros)), np.ndarray)
                outputs = self.infer({name: zeros})
        except (Exception, SystemExit) as error:
            raise Refused("WarmupFailed", f"the model cannot score a row of zeros: {sentence(error)}") from error
        self.outputs = [spec(name, datatype, array.shape[1:]) for name, datatype, array in outputs]

    def infer(self, inputs: dict[str, Array]) -> list[Tensor]:
        """Score one batch."""
        (values,) = inputs.values()
        values = texts(values)
        labels = self.estimator.predict(values)
        outputs: list[Tensor] = [(self.label, *labelled(labels))]
        if self.probabilities:
            outputs.append(("probabilities", FP64, np.asarray(self.estimator.predict_proba(values))))
        return outputs


def texts(values: Array) -> Array:
    """BYTES as text, everything else as it is."""
    if values.dtype != object:
        return values
    decoded = np.empty(values.size, object)
    decoded[:] = [element.decode() for element in values.ravel()]
    return decoded.reshape(values.shape)


def input_of(estimator: Any, declared: list[str]) -> tuple[str, int, tuple[int, ...]]:
    """(name, datatype number, trailing shape): from the estimator, or declared where it says nothing (text models)."""
    count = getattr(estimator, "n_features_in_", None)
    if count is not None:
        return "X", FP64, (int(count),)
    try:
        importlib.import_module("sklearn.utils.validation").check_is_fitted(estimator)
    except (Exception, SystemExit) as error:
        raise Refused("ArtifactInvalid", f"the model must be fitted before it is saved: {sentence(error)}") from error
    if len(declared) != 1:
        raise Refused(
            "SampleMissing",
            "the model does not say what input it takes; declare exactly one in `inputs`, such as "
            "{name: X, datatype: BYTES, shape: [-1]}",
        )
    datatype, sizes, name = declared[0].split(" ", 2)
    return name, NAMES.index(datatype) + 1, tuple(map(int, sizes.split(",")[1:]))


def labelled(labels: Any) -> tuple[int, Array]:
    """(datatype number, array) of what predict returned."""
    array = np.asarray(labels.toarray() if hasattr(labels, "toarray") else labels)
    if array.dtype.kind in "biu":
        return INT64, array.astype("<i8")
    if array.dtype.kind == "f":
        return FP64, array.astype("<f8")
    if array.dtype.kind == "O" and not all(isinstance(element, str) for element in array.ravel()):
        return labelled(np.asarray(array.tolist()))
    encoded = np.empty(array.size, object)
    encoded[:] = [str(element).encode() for element in array.ravel()]
    return BYTES, encoded.reshape(array.shape)


def written_by(estimator: Any, told: Sequence[warnings.WarningMessage]) -> str:
    """The release of scikit-learn that the model was saved with: the one here, unless loading warned of another."""
    for each in told:
        sys.stderr.write(f"{each.message}\n")
    if not type(estimator).__module__.startswith("sklearn."):
        return ""
    others = (getattr(each.message, "original_sklearn_version", None) for each in told)
    here = importlib.import_module("sklearn").__version__
    return str(next((version for version in others if version), here))


def sentence(error: BaseException) -> str:
    """The first line of an error, for people."""
    line = next((line for line in str(error).splitlines() if line.strip()), "no message").strip()[:500]
    return line if type(error) is ValueError else f"{type(error).__name__}: {line}"


def serve(channel: Channel) -> int:
    """Load the model and answer until the server is gone; returns the exit status."""
    hello = channel.read()
    if hello is None:
        return 0
    asked = dict(hello[2])
    try:
        if asked.get("protocol") != PROTOCOL:
            raise Refused("LoadFailed", f"this worker speaks protocol {PROTOCOL}, not {asked.get('protocol')!r}")
        with warnings.catch_warnings(record=True) as told:
            estimator = load(asked["path"], asked["format"], asked.get("trust") == "pickle")
        version = written_by(estimator, told)
        model = Model(estimator, [text for key, text in hello[2] if key == "input"])
    except Refused as refused:
        channel.write(ERROR, texts=[("kind", "user"), ("reason", refused.reason), ("message", str(refused))])
        return 0
    signature = [("input", model.input), *(("output", each) for each in model.outputs)]
    channel.write(READY, texts=[("protocol", PROTOCOL), ("formatVersion", version), *signature])
    while (request := channel.read()) is not None:
        number, tensors = request[1], request[3]
        try:
            outputs = model.infer({name: array for name, _, array in tensors})
        except MemoryError as error:
            channel.write(ERROR, number, [("kind", "internal"), ("message", f"no memory left: {sentence(error)}")])
        except (Exception, SystemExit) as error:
            channel.write(ERROR, number, [("kind", "user"), ("message", sentence(error))])
        else:
            channel.write(RESULT, number, tensors=outputs)
    return 0


def joined(folder: str) -> list[int]:
    """The pipes of a worker in a container of its own, once the server has opened them, too."""
    # Nothing ends the first process of a container before it has said what SIGTERM means.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    requests = os.open(os.path.join(folder, "requests"), os.O_RDONLY)
    # Nor can the server kill it: it ends with the conversation, also where the model is stuck.
    hung_up = select.poll()
    hung_up.register(requests, 0)
    threading.Thread(target=lambda: (hung_up.poll(), os._exit(0)), daemon=True).start()
    return [requests, os.open(os.path.join(folder, "answers"), os.O_WRONLY)]


def inherited() -> list[int]:
    """Off their known numbers and not inherited: neither the model's code nor its children write into the protocol."""
    descriptors = os.dup(3), os.dup(4)
    os.closerange(3, 5)
    return list(descriptors)


def main() -> int:
    descriptors = joined(os.environ["MODELYARD_PIPES"]) if "MODELYARD_PIPES" in os.environ else inherited()
    faulthandler.enable()
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    with open(descriptors[0], "rb", buffering=0) as source, open(descriptors[1], "wb") as sink:
        return serve(Channel(source, sink))


if __name__ == "__main__":
    sys.exit(main())
