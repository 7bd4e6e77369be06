"""The first process of a container: the kernel ends it by no signal that it has not asked for."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import skops.io
from msgspec import structs
from sklearn.linear_model import LogisticRegression

from front_testing import Client, body, get, post, until
from modelyard.storage.cache import Cache
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.work import ModelWork, ServeWork, WorkSpec

# As a user of a namespace of users where nobody may become root otherwise.
NAMESPACE = [
    "unshare",
    *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
    "--pid",
    "--fork",
    "--mount-proc",
]


def _may_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not _may_unshare(), reason="no namespaces of processes here")
INFER = "/v2/models/m/infer"


@contextmanager
def first(program: str, place: Place) -> Iterator[tuple[psutil.Process, subprocess.Popen[bytes]]]:
    """`python -m <program>` as process 1 of a namespace: as we see it, and who ends with its exit status."""
    command = [*NAMESPACE, "--kill-child", sys.executable, "-m", program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **place.environment()}
    outer = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        until(lambda: _children(outer.pid))
        (process,) = _children(outer.pid)
        yield process, outer
    finally:
        for each in _children(outer.pid):
            each.kill()
        outer.wait(timeout=20)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    rows = np.array([[0.0, 0.0], [1.0, 1.0]] * 2)
    skops.io.dump(LogisticRegression().fit(rows, [3, 8, 3, 8]), tmp_path / "m.skops")
    digest = Cache(tmp_path / "cache").put(tmp_path / "m.skops")
    work = ServeWork(models=(ModelWork(name="m", digest=digest, format="skops"),))
    (tmp_path / "work.json").write_bytes(works.encode(WorkSpec(serve=work)))
    return Place(
        work=str(tmp_path / "work.json"),
        report=str(tmp_path / "report.json"),
        cache=str(tmp_path / "cache"),
        scratch=str(tmp_path / "scratch"),
        socket=str(tmp_path / "front.sock"),
    )


def ready(place: Place) -> bool:
    path = Path(place.report)
    found = reports.decode(path.read_bytes()) if path.exists() else None
    return bool(found and found.serve and found.serve.ready)


def asked(place: Place) -> int:
    with Client(Path(place.socket), timeout=90) as client:
        answer = client.ask(post(INFER, body([1.0, 1.0], name="X", datatype="FP64", shape=(1, 2))))
        if answer.status == 200:
            assert answer.json["outputs"][0]["data"] == [8]
        return answer.status


def workers(front: psutil.Process) -> list[psutil.Process]:
    return [each for each in front.children() if each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.timeout(240)
def test_a_front_serves_outlives_its_worker_and_ends_when_asked(place: Place) -> None:
    with first("modelyard.runtime.front", place) as (front, outer):
        until(lambda: ready(place), 90)
        assert asked(place) == 200
        (worker,) = workers(front)
        worker.kill()
        until(lambda: worker.pid not in [each.pid for each in front.children()])
        until(lambda: asked(place) == 200, 90)
        (second,) = workers(front)
        assert front.children() == [second], "what ended was waited for"
        with Client(Path(place.socket)) as client:
            assert client.ask(get("/v2/health/ready")).status == 200
            front.send_signal(signal.SIGTERM)
            until(lambda: not ready(place))
            assert asked(place) == 200, "who still comes is answered"
            assert client.ask(get("/v2/health/live")).status == 200
        assert outer.wait(timeout=30) == 0
        until(lambda: not second.is_running())


class Busy:
    """A model that starts a program where it is loaded."""

    def __init__(self, model: Any) -> None:
        start = "__import__('subprocess').Popen(['sleep', '1000'])"
        self.code = f"({start}, __import__('pickle').loads({pickle.dumps(model)!r}))[1]"

    def __reduce__(self) -> Any:
        return eval, (self.code,)


@pytest.mark.timeout(240)
def test_what_a_killed_worker_had_started_is_no_zombie(place: Place) -> None:
    path = Path(place.work).with_name("busy.pkl")
    path.write_bytes(pickle.dumps(Busy(LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [3, 8]))))
    model = ModelWork(name="m", digest=Cache(Path(place.cache)).put(path), format="pickle", trust="pickle")
    Path(place.work).write_bytes(works.encode(WorkSpec(serve=ServeWork(models=(model,)))))
    with first("modelyard.runtime.front", place) as (front, _):
        until(lambda: ready(place), 90)
        (worker,) = workers(front)
        (started,) = worker.children()
        worker.kill()
        until(lambda: asked(place) == 200, 90)
        assert not started.is_running()
        assert front.children() == workers(front)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("program", ["front", "jobs", "streams", "prepare", "fetch", "progress"])
def test_it_ends_when_asked_before_everything_it_needs_is_loaded(place: Place, program: str) -> None:
    os.unlink(place.work)
    os.mkfifo(place.work)  # what reads it waits
    if program == "progress":
        place = structs.replace(place, report_listen="127.0.0.1:0")
    with first(f"modelyard.runtime.{program}", place) as (process, outer):
        until(lambda: _listens_to_sigterm(process))
        process.send_signal(signal.SIGTERM)
        assert outer.wait(timeout=30) == 143


def _listens_to_sigterm(process: psutil.Process) -> bool:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)
