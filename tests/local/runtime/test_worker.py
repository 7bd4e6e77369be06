import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import uvloop

import models_testing as models
from misbehaving_testing import Misbehaving
from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends import speaking
from modelyard.runtime.backends.load import load
from modelyard.runtime.backends.port import LoadFailed, Tensors, WorkerDied
from modelyard.runtime.backends.worker import WorkerBackend
from modelyard.wire.work import ModelWork, TensorSpec

ROWS = np.arange(8.0).reshape(2, 4)
POISON = np.full((1, 4), 13.0)


async def until(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Loader:
    """Opens backends and closes them at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[WorkerBackend] = []

    async def open(self, path: Path, format_name: str = "skops", trust: str = "", command: str = "") -> WorkerBackend:
        argv: tuple[str, ...] = ()
        if command:
            (self.folder / "worker.py").write_text(PREAMBLE + command)
            argv = (sys.executable, str(self.folder / "worker.py"))
        work = ModelWork(name="m", digest="", format=format_name, trust=trust, command=argv)
        found = await load(work, path, threads=1, scratch=self.folder)
        assert isinstance(found, WorkerBackend)
        self.opened.append(found)
        return found

    async def open_misbehaving(self, when: str) -> WorkerBackend:
        path = models.write_joblib(Misbehaving(when), self.folder / "m.joblib")
        return await self.open(path, "joblib", "pickle")


@pytest.fixture
async def loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Loader]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(models.__file__).parent), *sys.path]))
    loader = Loader(tmp_path)
    yield loader
    for opened in loader.opened:
        await opened.close()
        assert gone(opened.pid)


def labels(outputs: Tensors) -> list[object]:
    return list(outputs["label"].tolist())


async def test_a_classifier_answers_what_scikit_learn_answers(loader: Loader, tmp_path: Path) -> None:
    model = models.logistic_regression(np.where(models.CLASSES, "gut", "schläft"))
    found = await loader.open(models.write_skops(model, tmp_path / "lr.skops"))
    assert found.inputs == (TensorSpec(name="X", datatype="FP64", shape=(-1, 4)),)
    assert found.outputs == (
        TensorSpec(name="label", datatype="BYTES", shape=(-1,)),
        TensorSpec(name="probabilities", datatype="FP64", shape=(-1, 2)),
    )
    outputs = await found.infer({"X": models.X})
    assert labels(outputs) == [label.encode() for label in model.predict(models.X)]
    np.testing.assert_array_equal(outputs["probabilities"], model.predict_proba(models.X))
    large = np.tile(models.X, (5000, 1))  # several times the buffer of a pipe, both ways
    assert len(labels(await found.infer({"X": large}))) == len(large)


async def test_a_regressor_answers_predictions(loader: Loader, tmp_path: Path) -> None:
    model = models.regression()
    found = await loader.open(models.write_joblib(model, tmp_path / "m.joblib"), "joblib", "pickle")
    outputs = await found.infer({"X": ROWS})
    assert list(outputs) == ["predictions"]
    np.testing.assert_array_equal(outputs["predictions"], model.predict(ROWS))


async def test_values_that_the_model_refuses_are_the_callers_error_in_one_line(loader: Loader, tmp_path: Path) -> None:
    found = await loader.open(models.write_skops(models.logistic_regression(), tmp_path / "lr.skops"))
    with pytest.raises(UserError, match=r"Input X contains NaN\.$"):
        await found.infer({"X": ROWS * np.nan})
    pid = found.pid
    await found.infer({"X": ROWS})
    assert found.pid == pid


async def test_a_worker_killed_in_the_middle_of_a_batch_fails_that_batch_only(loader: Loader) -> None:
    found = await loader.open_misbehaving("hang")
    pid = found.pid
    call = asyncio.create_task(found.infer({"X": POISON}))
    await until((loader.folder / "hanging").exists)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="killed by SIGKILL") as caught:
        await call
    assert caught.value.retry_after_seconds == 0
    assert (await found.infer({"X": ROWS}))["predictions"].tolist() == [0, 0]
    assert found.pid != pid


async def test_a_worker_that_dies_again_and_again_is_started_with_growing_pauses(loader: Loader) -> None:
    found = await loader.open_misbehaving("die")
    for _ in range(3):
        with pytest.raises(WorkerDied, match="dying of row 13"):
            await found.infer({"X": POISON})
    pid = found.pid
    with pytest.raises(WorkerDied, match="started again soon") as caught:
        await found.infer({"X": ROWS})
    assert found.pid == pid  # nothing was started
    assert caught.value.retry_after_seconds is not None
    assert 0 < caught.value.retry_after_seconds <= 1


async def test_what_a_model_prints_or_writes_to_descriptors_never_reaches_the_protocol(
    loader: Loader, capfd: pytest.CaptureFixture[str]
) -> None:
    found = await loader.open_misbehaving("talk")
    for _ in range(3):
        assert (await found.infer({"X": ROWS}))["predictions"].tolist() == [0, 0]
    await found.close()
    assert "garbage on stdout" in capfd.readouterr().err


async def test_a_model_that_hangs_is_ended_at_the_deadline(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await loader.open_misbehaving("hang")
    pid = found.pid
    monkeypatch.setattr(speaking, "INFER_SECONDS", 0.2)
    with pytest.raises(WorkerDied, match=r"no answer within 0\.2 s"):
        await found.infer({"X": POISON})
    assert gone(pid)


async def test_a_cancelled_call_never_gives_its_answer_to_the_next(loader: Loader) -> None:
    found = await loader.open_misbehaving("hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await found.infer({"X": POISON})
    assert (await found.infer({"X": ROWS}))["predictions"].tolist() == [0, 0]


async def test_a_worker_sees_its_owners_variables_and_how_many_threads_it_has(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_WORK", "/work.json")
    monkeypatch.setenv("MODELYARD_REPORT", "/report.json")
    monkeypatch.setenv("MY_OWN", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    found = await loader.open(models.write_skops(models.logistic_regression(), tmp_path / "lr.skops"))
    seen = psutil.Process(found.pid).environ()
    assert [name for name in seen if name.startswith("MODELYARD_")] == ["MODELYARD_WORK"]
    assert (seen["MY_OWN"], seen["MKL_NUM_THREADS"], seen["OMP_NUM_THREADS"]) == ("1", "7", "1")
    assert os.getsid(found.pid) == found.pid


PREAMBLE = """
import os, struct, sys, time
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
    while size:
        size -= len(os.read(3, size))
    return number
def tensor(name, *values):
    data = struct.pack(f"<{len(values)}d", *values)
    return struct.pack("<HBB4xQq", len(name), 12, 1, len(data), len(values)) + name.encode().ljust(8, b"\\0") + data
READY = [("protocol", "1"), ("input", "FP64 -1 a"), ("output", "FP64 -1 y")]
read()
"""


async def test_a_users_own_program_is_a_worker(loader: Loader, tmp_path: Path) -> None:
    program = "frame(2, texts=READY)\nwhile True: frame(4, read(), tensors=tensor('y', 1.5, 2.5), count=1)"
    found = await loader.open(tmp_path, "mine", command=program)
    assert (await found.infer({"a": np.zeros(2)}))["y"].tolist() == [1.5, 2.5]


async def test_a_program_that_cannot_score_is_told_from_one_that_refuses(loader: Loader, tmp_path: Path) -> None:
    program = """
frame(2, texts=READY)
frame(5, read(), [("kind", "user"), ("message", "too cold")])
frame(5, read(), [("kind", "internal"), ("message", "too tired")])
read()
"""
    found = await loader.open(tmp_path, "mine", command=program)
    with pytest.raises(UserError, match="too cold"):
        await found.infer({"a": np.zeros(1)})
    with pytest.raises(RetryLater, match="too tired") as caught:
        await found.infer({"a": np.zeros(1)})
    assert not isinstance(caught.value, WorkerDied)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("os.write(4, b'hello, world, this is no frame')", "no frame"),
        ("frame(2, texts=READY[1:])", "speaks protocol ''"),
        ("frame(2, texts=READY[:2])", "at least one of its outputs"),
        ("frame(2, texts=[*READY, ('input', 'FLOAT x')])", "is no input or output"),
        ("frame(4)", "answered HELLO with RESULT"),
        ("os.close(4); time.sleep(60)", "closed its pipes"),
        ("print('bad luck'); sys.exit(3)", "ended with status 3; its last lines:\n  bad luck"),
        ("frame(5, texts=[('kind', 'user'), ('reason', 'NoSuchReason'), ('message', 'wrong moon')])", "wrong moon"),
    ],
)
async def test_a_program_that_does_not_get_ready_says_why(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    monkeypatch.setattr("modelyard.runtime.worker.process._DIE_SECONDS", 1.0)
    others = set(psutil.Process().children())  # of fixtures that last as long as the whole run
    with pytest.raises(LoadFailed) as caught:
        await loader.open(tmp_path, "mine", command=program)
    assert told in caught.value.message
    assert caught.value.reason == Reason.LOAD_FAILED
    assert not set(psutil.Process().children()) - others


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("frame(4, 77, tensors=tensor('y', 1.0), count=1)", "RESULT 77, not RESULT 1"),
        ("frame(4, 1, tensors=tensor('z', 1.0), count=1)", "'z', not FP64"),
        ("frame(4, 1, tensors=tensor('y', 1.0, 2.0), count=1)", "2 rows of 'y' for 1"),
        ("frame(4, 1)", "0 outputs, not 1"),
        ("os.close(3); time.sleep(60)", "closed its pipes"),
        ("frame(4, 1, tensors=bytes(12), count=1)", "breaks the protocol"),
        ("os.write(4, b'x' * 100)", "breaks the protocol"),
        ("os.write(4, bytes(9)); os._exit(0)", "ended with status 0"),
    ],
)
async def test_a_program_that_answers_nonsense_fails_that_batch_and_is_replaced(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, told: str
) -> None:
    monkeypatch.setattr("modelyard.runtime.worker.process._DIE_SECONDS", 1.0)
    program = f"frame(2, texts=READY)\nread()\n{answer}\nread()"
    found = await loader.open(tmp_path, "mine", command=program)
    pid = found.pid
    with pytest.raises(WorkerDied) as caught:
        await found.infer({"a": np.zeros(1)})
    assert told in caught.value.message
    assert gone(pid)


async def test_a_program_that_talks_unasked_is_replaced(loader: Loader, tmp_path: Path) -> None:
    program = "frame(2, texts=READY)\nframe(4, 1)\ntime.sleep(60)"
    found = await loader.open(tmp_path, "mine", command=program)
    await until(lambda: not found._worker.alive)
    (tmp_path / "worker.py").write_text(
        f"{PREAMBLE}frame(2, texts=READY)\nframe(4, read(), tensors=tensor('y', 3.0), count=1)"
    )
    assert (await found.infer({"a": np.zeros(1)}))["y"].tolist() == [3.0]


async def test_children_of_a_worker_end_with_it(loader: Loader, tmp_path: Path) -> None:
    program = """
child = os.fork()
if child == 0:
    time.sleep(600)
    os._exit(0)
open("child.new", "w").write(str(child))
os.rename("child.new", os.path.join(os.path.dirname(__file__), "child"))
frame(2, texts=READY)
read()
"""
    found = await loader.open(tmp_path, "mine", command=program.replace('"child.new"', f"{str(tmp_path / 'new')!r}"))
    child = int((tmp_path / "child").read_text())
    assert psutil.pid_exists(child)
    await found.close()
    await until(lambda: gone(child))


def test_a_server_killed_with_9_leaves_no_worker(tmp_path: Path) -> None:
    models.write_skops(models.logistic_regression(), tmp_path / "lr.skops")
    server = f"""
import asyncio, os
from pathlib import Path
from modelyard.runtime.backends.load import load
from modelyard.wire.work import ModelWork
async def main():
    folder = Path({str(tmp_path)!r})
    found = await load(ModelWork(name="m", digest="", format="skops"), folder / "lr.skops", threads=1, scratch=folder)
    print(found.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not gone(pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while not gone(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_workers_run_under_uvloop(tmp_path: Path) -> None:
    path = models.write_skops(models.logistic_regression(), tmp_path / "lr.skops")

    async def main() -> None:
        found = await load(ModelWork(name="m", digest="", format="skops"), path, threads=1, scratch=tmp_path)
        assert isinstance(found, WorkerBackend)
        assert len(labels(await found.infer({"X": np.tile(ROWS, (20_000, 1))}))) == 40_000
        os.kill(found.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await found.infer({"X": ROWS})
        assert len(labels(await found.infer({"X": ROWS}))) == 2
        await found.close()

    uvloop.run(main())
