"""A local server as a user starts it: `modelyard up` in a folder of its own, and the commands that go with it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper

from modelyard.base.errors import ModelyardError
from modelyard.sdk.client import Client

T = TypeVar("T")
MODELYARD = (sys.executable, "-m", "modelyard")
INPUT = np.array([[1.0, 2.0]], dtype=np.float32)
BODY = json.dumps({"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}).encode()


def write_onnx(path: Path, plus: float) -> None:
    """`y = X + plus`, X: FP32 [-1, 2]."""
    node = helper.make_node("Add", ["X", "plus"], ["y"])
    graph = helper.make_graph(
        [node],
        "plus",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor("plus", TensorProto.FLOAT, [1], [plus])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(onnx.ModelProto.SerializeToString(model))


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def wait_until(fact: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (answer := fact()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return answer


class Yard:
    """`modelyard up FOLDER` on a free port, ended when left."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.url = ""
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / ".modelyard"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        log = self.folder / "up.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*MODELYARD, "up", ".", "--listen", "127.0.0.1:0", *self._options],
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.url = wait_until(self._find_url, "modelyard up")

    def _find_url(self) -> str:
        assert self._process is not None
        text = (self.folder / "up.log").read_text()
        for line in text.splitlines():
            if line.split()[:1] == ["gateway"]:
                return line.split()[1]
        assert self._process.poll() is None, text
        return ""

    def stop(self) -> int:
        """Ctrl-C; returns the exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def children(self) -> list[psutil.Process]:
        """All that it has started."""
        return psutil.Process(self.pid).children(recursive=True)

    def replicas(self, service_name: str) -> list[psutil.Process]:
        """The processes that serve a model, known by the socket in their environment."""
        return [each for each in self.children() if f"/{service_name}-svc-" in _socket(each)]

    def cli(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What a command prints; with check, its status must be 0."""
        done = subprocess.run(
            [*MODELYARD, *arguments],
            check=False,
            cwd=self.folder,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=90,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def apply(self, *objects: dict[str, Any], wait: bool = True) -> str:
        text = "\n---\n".join(json.dumps(each) for each in objects)
        return self.cli("apply", "-f", "-", *(["--wait"] if wait else []), stdin=text)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found = json.loads(self.cli("get", kind, name, "-o", "json"))
        assert isinstance(found, dict)
        return found

    def condition(self, name: str, type_: str = "Ready", kind: str = "modelservice") -> dict[str, Any]:
        conditions = self.get(kind, name).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == type_), {})

    def predict(self, name: str) -> float:
        """What the model adds to INPUT. Nothing is tried again."""
        with Client(self.url, retry=False) as client:
            answer = client.predict(name, {"X": INPUT})
        return float(answer["y"][0, 0] - INPUT[0, 0])

    def answers(self, name: str) -> bool:
        try:
            self.predict(name)
        except ModelyardError:
            return False
        return True


class Load:
    """Threads that send requests until left. failures: every error of every request; answers: distinct results.

    pause: seconds that each of them rests after an answer.
    """

    def __init__(self, url: str, name: str, threads: int = 4, *, token: str = "", pause: float = 0.02) -> None:
        self.failures: list[str] = []
        self.answers: set[float] = set()
        self.sent = 0
        self._url = url
        self._name = name
        self._token = token
        self._pause = pause
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for each in self._threads:
            each.join()

    def more(self, count: int = 50) -> None:
        """Wait until so many further requests were answered."""
        goal = self.sent + count
        wait_until(lambda: self.sent >= goal, f"{count} more requests")

    def _send(self) -> None:
        with Client(self._url, retry=False, token=self._token or None) as client:
            while not self._over.wait(self._pause):
                try:
                    answer = client.predict(self._name, {"X": INPUT})
                    self.answers.add(float(answer["y"][0, 0] - INPUT[0, 0]))
                except ModelyardError as error:
                    self.failures.append(str(error))
                self.sent += 1


def call(url: str, name: str, token: str = "") -> int:
    """The status of one inference; a refusal is always one of ours."""
    request = urllib.request.Request(f"{url}/v2/models/{name}/infer", BODY)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        json.load(refused)["error"]
        return refused.code


def gone(processes: list[psutil.Process], seconds: float = 15.0) -> None:
    """Assert that they end; zombies of another parent count as ended."""

    def left() -> list[psutil.Process]:
        return [each for each in processes if each.is_running() and _status(each) != psutil.STATUS_ZOMBIE]

    wait_until(lambda: not left(), f"{processes} must end", seconds)


def _socket(process: psutil.Process) -> str:
    try:
        return process.environ().get("MODELYARD_SOCKET", "")
    except psutil.Error:
        return ""


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def kill(process: psutil.Process) -> None:
    """kill -9."""
    os.kill(process.pid, signal.SIGKILL)
