"""Small ONNX models, and clients that speak to a front over its socket."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelyard.control.ir import unit_secret
from modelyard.storage.cache import Cache
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.report import Report
from modelyard.wire.work import ModelWork, ServeWork


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] = []) -> Path:  # noqa: B006
    """Write a checked model whose opset every supported ONNX Runtime reads."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def tensor(name: str, kind: int, shape: Sequence[int | str | None]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def linear(path: Path, features: int = 4, classes: int = 3) -> Path:
    """y [-1, classes] = x [-1, features] @ weights, where weights[i][j] = i + j."""
    weights = np.add.outer(np.arange(features), np.arange(classes)).astype(np.float32)
    return save(
        path,
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        [tensor("x", TensorProto.FLOAT, ["rows", features])],
        [tensor("y", TensorProto.FLOAT, ["rows", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )


def identity(path: Path, kind: int, shape: Sequence[int | str | None] = ("rows", 2)) -> Path:
    """y = x, of any datatype."""
    return save(
        path, [helper.make_node("Identity", ["x"], ["y"])], [tensor("x", kind, shape)], [tensor("y", kind, shape)]
    )


def softmax_over_rows(path: Path) -> Path:
    """A model whose first dimension is not the rows of independent requests."""
    return save(
        path,
        [helper.make_node("Softmax", ["x"], ["y"], axis=0)],
        [tensor("x", TensorProto.FLOAT, ["n", 2])],
        [tensor("y", TensorProto.FLOAT, ["n", 2])],
    )


def lookup(path: Path) -> Path:
    """y = table[x]: refuses indices above 2 while it runs."""
    table = np.array([10.0, 20.0, 30.0], np.float32)
    return save(
        path,
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [tensor("x", TensorProto.INT64, ["rows"])],
        [tensor("y", TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(table, "table")],
    )


def slow(path: Path, size: int = 700, layers: int = 40) -> Path:
    """y [-1, size]: a chain of matrix products that takes some tens of milliseconds for a row and more for many."""
    weights = np.eye(size, dtype=np.float32)
    names = ["x", *(f"h{layer}" for layer in range(layers - 1)), "y"]
    return save(
        path,
        [helper.make_node("MatMul", [names[i], "weights"], [names[i + 1]]) for i in range(layers)],
        [tensor("x", TensorProto.FLOAT, ["rows", size])],
        [tensor("y", TensorProto.FLOAT, ["rows", size])],
        [numpy_helper.from_array(weights, "weights")],
    )


def body(data: Any, *, name: str = "x", datatype: str = "FP32", shape: Sequence[int] = (1, 4), **more: Any) -> bytes:
    """An inference request with one input."""
    inputs = [{"name": name, "datatype": datatype, "shape": list(shape), "data": data}]
    return json.dumps({"inputs": inputs, **more}).encode()


def post(path: str, content: bytes, headers: str = "") -> bytes:
    """The bytes of a POST request."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(content)}\r\n\r\n".encode() + content
    )


def call(method: str, message: bytes, *, model: str = "") -> bytes:
    """The bytes of a gRPC call as Envoy sends it on; model: whose path it is."""
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    path = f"/inference.GRPCInferenceService/{method}" + (f"/{model}" if model else "")
    return post(path, framed, "Content-Type: application/grpc\r\nTE: trailers\r\n")


def get(path: str, headers: str = "") -> bytes:
    """The bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


class Answer:
    """One parsed response. text: the body."""

    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def message(self) -> bytes:
        """The one message of a gRPC call that succeeded."""
        assert (self.status, self.headers["grpc-status"]) == (200, "0"), self.headers
        assert self.content[:5] == b"\0" + (len(self.content) - 5).to_bytes(4, "big")
        return self.content[5:]

    @property
    def refusal(self) -> tuple[int, str]:
        """The status and the sentence of a gRPC call that failed."""
        assert (self.status, self.content) == (200, b""), self.content
        return int(self.headers["grpc-status"]), unquote(self.headers["grpc-message"])

    @property
    def error(self) -> str:
        found = self.json
        assert list(found) == ["error"], found
        assert isinstance(found["error"], str)
        return found["error"]


class Client:
    """One connection, with nothing between the test and the bytes."""

    def __init__(self, where: Path | tuple[str, int], timeout: float = 20.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET)
        self._socket.settimeout(timeout)
        self._buffer = b""
        try:
            self._socket.connect(str(where) if isinstance(where, Path) else where)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.read()

    def read(self, *, head: bool = False) -> Answer:
        """The next response; head: of a HEAD request. Raises ConnectionError when the server closed."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        top, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = top.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if headers.get("transfer-encoding") == "chunked":
            return Answer(int(lines[0].split()[1]), headers, self._chunks(headers))
        size = 0 if head else int(headers.get("content-length", "0"))
        while len(self._buffer) < size:
            self._fill()
        content, self._buffer = self._buffer[:size], self._buffer[size:]
        return Answer(int(lines[0].split()[1]), headers, content)

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _chunks(self, headers: dict[str, str]) -> bytes:
        """The content; trailers are added to the headers."""
        content = b""
        while size := int(self._line(), 16):
            while len(self._buffer) < size + 2:
                self._fill()
            content, self._buffer = content + self._buffer[:size], self._buffer[size + 2 :]
        while line := self._line().decode():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return content

    def arrived(self, seconds: float) -> bool:
        """Whether the server sends something within so many seconds."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def closed(self) -> bool:
        """Wait for the server to close; False if it sends something instead."""
        try:
            return self._socket.recv(1) == b""
        except ConnectionError:
            return True

    def _fill(self) -> None:
        data = self._socket.recv(2**16)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data


class Front:
    """A front process on a Unix socket, as a driver starts it."""

    def __init__(self, folder: Path, models: dict[str, Path], **settings: Any) -> None:
        self.folder = folder
        self.socket = folder / "front.sock"
        self._report = folder / "report.json"
        self._log = folder / "front.log"
        cache = Cache(folder / "cache")
        version = settings.pop("version", "3")
        secret: str = settings.pop("gateway_secret", "")
        shadow: str = settings.pop("shadow", "")
        more: dict[str, str] = settings.pop("place", {})
        command: tuple[str, ...] = settings.pop("command", ())
        self.work = ServeWork(
            models=tuple(
                ModelWork(
                    name=name,
                    aliases=(f"{name}.default",),
                    version=version,
                    digest=cache.put(path),
                    format=path.suffix.removeprefix("."),
                    command=command,
                )
                for name, path in models.items()
            ),
            **settings,
        )
        (folder / "work.json").write_bytes(works.encode(works.WorkSpec(serve=self.work)))
        place = Place(
            work=str(folder / "work.json"),
            report=str(self._report),
            cache=str(folder / "cache"),
            scratch=str(folder / "scratch"),
            socket=str(self.socket),
            gateway_digest=unit_secret.digest(secret),
            shadow=shadow,
        )
        self.place = msgspec.structs.replace(place, **more)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self._report.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "modelyard.runtime.front"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.place.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        try:
            until(lambda: self._serving() or self.process.poll() is not None, 60)
            assert self._serving(), self.log
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def _serving(self) -> bool:
        found = self.report
        return found is not None and found.serve is not None and found.serve.ready

    @property
    def report(self) -> Report | None:
        return reports.decode(self._report.read_bytes()) if self._report.exists() else None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self) -> Client:
        return Client(self.socket)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=30)


def ask_once(front: Front, data: bytes) -> Answer:
    """One request on a connection of its own."""
    with front.client() as client:
        return client.ask(data)


def until(fact: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a fact."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
