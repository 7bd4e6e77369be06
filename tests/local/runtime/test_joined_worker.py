"""Workers behind two FIFOs, as in a container of their own: they come, go and come again without being asked."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import uvloop

import models_testing as models
from front_testing import Front, body, get, post
from front_testing import until as happens
from misbehaving_testing import Misbehaving
from modelyard.base.conditions import Reason
from modelyard.runtime.backends import load as loading
from modelyard.runtime.backends import speaking
from modelyard.runtime.backends.joined import JoinedBackend
from modelyard.runtime.backends.load import load
from modelyard.runtime.backends.port import LoadFailed, WorkerDied, WorkerMissing
from modelyard.runtime.worker import joined, python_worker
from modelyard.wire.place import ENV_PIPES, ENV_SCRATCH
from modelyard.wire.work import ModelWork

PAGE = Path(__file__).parents[3] / "docs/how-to/runtimes.md"
(SHELL,) = re.findall(r"'(exec .*)'", PAGE.read_text())
"""For workers that know descriptors 3 and 4 alone."""
TIMES = """
import os, signal, struct, sys, time
factor = float(sys.argv[1])
def frame(kind, number=0, texts=(), tensors=b"", count=0):
    body = struct.pack("<II", len(texts), count)
    for key, text in texts:
        both = (key + text).encode()
        body += struct.pack("<II", len(key), len(text)) + both + bytes(-len(both) % 8)
    body += tensors
    os.write(4, struct.pack("<QIB3x", len(body), number, kind) + body)
def read():
    header = os.read(3, 16)
    if not header:
        sys.exit(0)
    size, number, kind = struct.unpack("<QIB3x", header)
    body = os.read(3, size)
    return number, struct.unpack("<d", body[-8:])[0]
read()
if factor < 0:
    frame(5, texts=[("kind", "user"), ("reason", "ArtifactInvalid"), ("message", "half a model")])
    sys.exit(0)
assert os.path.exists(os.environ["MODEL_DIR"])
frame(2, texts=[("protocol", "1"), ("input", "FP64 -1 a"), ("output", "FP64 -1 y")])
while True:
    number, value = read()
    if value == 13:
        open(sys.argv[2], "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    data = struct.pack("<d", factor * value)
    frame(4, number, tensors=struct.pack("<HBB4xQq", 1, 12, 1, 8, 1) + b"y".ljust(8, bytes(1)) + data, count=1)
"""
MINE = ModelWork(name="m", digest="", format="mine", command=("worker",))


class Containers:
    """Starts workers as whoever runs containers does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pipes = folder / "pipes"
        self.pipes.mkdir()
        joined.made(self.pipes)
        self.stopped = folder / "stopped"
        (folder / "worker.py").write_text(TIMES)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        variables = {ENV_PIPES: str(self.pipes), "MODEL_DIR": str(self.pipes / "model")}
        found = subprocess.Popen(argv, env={**os.environ, **variables}, stdin=subprocess.DEVNULL)
        self.started.append(found)
        return found

    def times(self, factor: float) -> subprocess.Popen[bytes]:
        """A worker that multiplies, and stops in the middle of 13."""
        script = str(self.folder / "worker.py")
        return self.start("sh", "-c", SHELL, "sh", sys.executable, script, str(factor), str(self.stopped))


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Containers]:
    found = Containers(tmp_path)
    monkeypatch.setenv(ENV_PIPES, str(found.pipes))
    monkeypatch.setenv(ENV_SCRATCH, str(tmp_path))
    yield found
    for each in found.started:
        each.kill()
        each.wait()


@pytest.fixture
async def opened() -> AsyncIterator[list[JoinedBackend]]:
    found: list[JoinedBackend] = []
    yield found
    for each in found:
        await each.close()


async def joins(containers: Containers, opened: list[JoinedBackend], *, job: bool = False) -> JoinedBackend:
    folder = containers.folder
    found = await load(MINE, folder / "worker.py", threads=1, scratch=folder, job=job)
    assert isinstance(found, JoinedBackend)
    opened.append(found)
    return found


async def asked(backend: JoinedBackend, value: float) -> list[float]:
    found: list[float] = (await backend.infer({"a": np.array([value])}))["y"].tolist()
    return found


async def until(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def test_it_does_not_matter_who_comes_first(containers: Containers, opened: list[JoinedBackend]) -> None:
    coming = asyncio.create_task(joins(containers, opened))
    await until(_waits_in_a_thread)
    worker = containers.times(2)
    backend = await coming
    assert await asked(backend, 4) == [8]
    await backend.close()
    assert await asyncio.to_thread(worker.wait, 20) == 0  # it has seen the end of its input
    containers.times(3)
    assert await asked(await joins(containers, opened), 4) == [12]


def _waits_in_a_thread() -> bool:
    return any(each.name.startswith("asyncio") for each in threading.enumerate())


async def test_our_worker_takes_its_pipes_from_the_environment(
    containers: Containers, opened: list[JoinedBackend]
) -> None:
    path = models.write_skops(models.logistic_regression(), containers.folder / "lr.skops")
    worker = containers.start(sys.executable, python_worker.__file__)
    work = ModelWork(name="m", digest="", format="skops", command=("worker",))
    found = await load(work, path, threads=1, scratch=containers.folder)
    assert isinstance(found, JoinedBackend)
    opened.append(found)
    large = np.tile(models.X, (5000, 1))  # several times the buffer of a pipe, both ways
    assert len((await found.infer({"X": large}))["label"]) == len(large)
    assert os.readlink(containers.pipes / "model") == str(path)
    await found.close()
    assert await asyncio.to_thread(worker.wait, 20) == 0


async def test_our_worker_ends_when_asked_while_it_waits(containers: Containers) -> None:
    worker = containers.start(sys.executable, python_worker.__file__)
    await until(lambda: _catches(worker.pid, signal.SIGTERM))
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 20) == 143


def _catches(pid: int, number: signal.Signals) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return bool(next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")) >> (number - 1) & 1)


async def test_a_worker_killed_in_the_middle_fails_that_batch_and_the_next_one_is_joined(
    containers: Containers, opened: list[JoinedBackend]
) -> None:
    worker = containers.times(2)
    backend = await joins(containers, opened)
    call = asyncio.create_task(asked(backend, 13))
    await until(containers.stopped.exists)
    worker.kill()
    with pytest.raises(WorkerDied, match="container `worker`"):
        await call
    assert not backend.available
    with pytest.raises(WorkerMissing):
        await asked(backend, 1)
    containers.times(5)
    await until(lambda: backend.available)
    assert await asked(backend, 2) == [10]


async def test_a_jobs_batch_waits_for_the_next_worker(containers: Containers, opened: list[JoinedBackend]) -> None:
    worker = containers.times(2)
    backend = await joins(containers, opened, job=True)
    worker.kill()
    await until(lambda: not backend.available)
    call = asyncio.create_task(asked(backend, 2))
    await asyncio.sleep(0)
    assert not call.done()
    containers.times(7)
    assert await call == [14]


async def test_what_a_stuck_worker_says_later_is_never_taken_for_an_answer_of_the_next(
    containers: Containers, opened: list[JoinedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = containers.times(2)
    backend = await joins(containers, opened)
    monkeypatch.setattr(speaking, "INFER_SECONDS", 0.2)
    with pytest.raises(WorkerDied, match=r"no answer within 0\.2 s"):
        await asked(backend, 13)
    monkeypatch.setattr(speaking, "INFER_SECONDS", 60.0)
    containers.times(5)
    await until(lambda: backend.available)
    stuck.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(stuck.wait, 20) != 0  # nobody reads its answer
    assert await asked(backend, 3) == [15]


async def test_our_worker_ends_with_the_conversation_although_its_model_is_stuck(
    containers: Containers, opened: list[JoinedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.write_joblib(Misbehaving("hang"), containers.folder / "m.joblib")
    monkeypatch.setenv("PYTHONPATH", str(Path(models.__file__).parent))
    monkeypatch.setenv("TMPDIR", str(containers.folder))
    worker = containers.start(sys.executable, python_worker.__file__)
    work = ModelWork(name="m", digest="", format="joblib", trust="pickle", command=("worker",))
    found = await load(work, path, threads=1, scratch=containers.folder)
    assert isinstance(found, JoinedBackend)
    opened.append(found)
    monkeypatch.setattr(speaking, "INFER_SECONDS", 0.2)
    with pytest.raises(WorkerDied, match="no answer within"):
        await found.infer({"X": np.full((1, 4), 13.0)})
    assert await asyncio.to_thread(worker.wait, 20) == 0


async def test_a_worker_that_never_comes_is_missed_after_a_while(
    containers: Containers, opened: list[JoinedBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaking, "LOAD_SECONDS", 0.2)
    with pytest.raises(LoadFailed, match="no worker has opened its pipes within") as caught:
        await joins(containers, opened)
    assert caught.value.retry
    containers.times(2)  # and no thread of ours is in its way
    monkeypatch.setattr(speaking, "LOAD_SECONDS", 60.0)
    assert await asked(await joins(containers, opened), 4) == [8]


async def test_a_worker_that_refuses_the_model_says_why(containers: Containers, opened: list[JoinedBackend]) -> None:
    containers.times(-1)
    with pytest.raises(LoadFailed, match="half a model") as caught:
        await joins(containers, opened)
    assert (caught.value.reason, caught.value.retry) == (Reason.ARTIFACT_INVALID, False)


async def test_only_fifos_are_opened(containers: Containers, opened: list[JoinedBackend]) -> None:
    (containers.pipes / "answers").unlink()
    (containers.pipes / "answers").write_text("")
    with pytest.raises(LoadFailed, match="is no FIFO"):
        await joins(containers, opened)


def test_a_model_of_ours_has_no_other_container(containers: Containers) -> None:
    assert loading.is_joined(MINE)
    assert not loading.is_joined(ModelWork(name="m", digest="", format="skops"))


def test_they_are_joined_under_uvloop(containers: Containers) -> None:
    async def main() -> None:
        worker = containers.times(2)
        found: list[JoinedBackend] = []
        backend = await joins(containers, found)
        worker.kill()
        await until(lambda: not backend.available)
        containers.times(3)
        await until(lambda: backend.available)
        assert await asked(backend, 4) == [12]
        await backend.close()

    uvloop.run(main())


def test_a_front_is_not_ready_while_its_worker_is_gone(containers: Containers) -> None:
    path = models.write_skops(models.logistic_regression(), containers.folder / "lr.skops")
    worker = containers.start(sys.executable, python_worker.__file__)
    pipes = {"pipes": str(containers.pipes)}
    with Front(containers.folder, {"lr": path}, place=pipes, command=("worker",)) as front:
        ask = post("/v2/models/lr/infer", body([0.0] * 4, name="X", datatype="FP64", shape=(1, 4)))
        with front.client() as client:
            assert client.ask(ask).status == 200
            worker.kill()
            happens(lambda: client.ask(get("/v2/health/ready")).status == 503)
            assert client.ask(get("/v2/health/live")).status == 200
            refused = client.ask(ask)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            containers.start(sys.executable, python_worker.__file__)
            happens(lambda: client.ask(get("/v2/health/ready")).status == 200, 60)
            assert client.ask(ask).status == 200
        assert front.stop() == 0
        assert "Traceback" not in front.log
