"""A real front process: how it starts, fails and stops."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import front_testing
from front_testing import Client, Front, body, get, post, until
from modelyard.base.conditions import Reason
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.report import Failure
from modelyard.wire.work import TensorSpec

INFER = "/v2/models/linear/infer"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    models = {
        "linear": front_testing.linear(tmp_path / "linear.onnx"),
        "slow": front_testing.slow(tmp_path / "slow.onnx"),
    }
    with Front(tmp_path, models, drain_seconds=10) as found:
        yield found


class Caller(threading.Thread):
    """Asks without a pause, on new connections where the server wants that, until the server is gone."""

    def __init__(self, path: Path, row: float) -> None:
        super().__init__()
        self._path = path
        self._row = row
        self.answered = 0
        self.failed: list[str] = []

    def run(self) -> None:
        request = post(INFER, body([self._row, 0, 0, 0]))
        while True:
            try:
                client = Client(self._path)
            except OSError:
                return  # nobody listens: the caller knows, and nothing was sent
            with client:
                if not self._converse(client, request):
                    return

    def _converse(self, client: Client, request: bytes) -> bool:
        while True:
            try:
                answer = client.ask(request)
            except OSError as error:
                self.failed.append(repr(error))
                return False
            if answer.status != 200 or answer.json["outputs"][0]["data"] != [0, self._row, 2 * self._row]:
                self.failed.append(f"{answer.status} {answer.content!r}")
            self.answered += 1
            if answer.headers.get("connection") == "close":
                return True


def test_no_request_fails_when_the_server_is_stopped_under_load(front: Front) -> None:
    callers = [Caller(front.socket, float(row)) for row in range(8)]
    for caller in callers:
        caller.start()
    until(lambda: all(caller.answered > 20 for caller in callers))
    before = [caller.answered for caller in callers]
    status = front.stop()
    for caller in callers:
        caller.join(timeout=20)
    assert [caller.failed for caller in callers] == [[]] * 8
    assert all(caller.answered > count for caller, count in zip(callers, before, strict=True))
    assert status == 0
    assert not front.socket.exists()
    assert "Traceback" not in front.log


def test_after_sigterm_it_is_not_ready_and_finishes_what_it_began(front: Front) -> None:
    with front.client() as busy, front.client() as observer:
        busy.send(post("/v2/models/slow/infer", body([0.5] * 700 * 400, shape=(400, 700))))
        observer.ask(get("/v2/health/ready"))
        until(lambda: b'in_flight{model="slow"} 1' in observer.ask(get("/metrics")).content)
        front.process.terminate()
        until(lambda: front.report is not None and front.report.serve is not None and not front.report.serve.ready)
        answer = observer.ask(get("/v2/health/ready"))
        assert (answer.status, answer.error, answer.headers["connection"]) == (503, "the server is stopping", "close")
        assert busy.read().status == 200
        assert busy.closed()
    assert front.process.wait(timeout=20) == 0


def test_without_clients_it_stops_at_once(front: Front) -> None:
    began = time.monotonic()
    assert front.stop() == 0
    assert time.monotonic() - began < 0.9


def test_a_client_that_never_finishes_its_request_cannot_hold_the_server_longer_than_the_drain(tmp_path: Path) -> None:
    models = {"linear": front_testing.linear(tmp_path / "linear.onnx")}
    with Front(tmp_path, models, drain_seconds=1.5) as front, front.client() as client:
        client.send(post(INFER, body([1, 2, 3, 4]))[:-5])
        until(lambda: b"in_flight" in front_testing.ask_once(front, get("/metrics")).content)
        assert front.stop() == 0
        assert "1 connections were still at work after 1.5 seconds" in front.log


def test_a_model_that_is_still_at_work_when_the_drain_ends_does_not_hold_up_the_end(tmp_path: Path) -> None:
    models = {"slow": front_testing.slow(tmp_path / "slow.onnx")}
    with Front(tmp_path, models, drain_seconds=0.2, max_batch_rows=5000) as front, front.client() as client:
        client.send(post("/v2/models/slow/infer", body([0.5] * 700 * 3000, shape=(3000, 700))))
        until(lambda: b'in_flight{model="slow"} 1' in front_testing.ask_once(front, get("/metrics")).content)
        began = time.monotonic()
        assert front.stop() == 0
        assert time.monotonic() - began < 1.5


def test_the_socket_that_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    models = {"linear": front_testing.linear(tmp_path / "linear.onnx")}
    with Front(tmp_path, models) as first:
        first.process.kill()
        first.process.wait()
        assert first.socket.exists()
    with Front(tmp_path, models) as second, second.client() as client:
        assert client.ask(get("/v2/health/ready")).status == 200


def test_it_is_small_and_quick(front: Front) -> None:
    proportional = sum(
        int(line.split()[1])
        for line in Path(f"/proc/{front.process.pid}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    assert proportional < 120 * 1024  # kB; the aim is 70 MB, tests are no benchmark


def failed(folder: Path, path: Path, **changes: object) -> Failure:
    """What a server that cannot serve the artifact reports."""
    with pytest.raises(AssertionError, match="cannot serve"):
        Front(folder, {"m": path}, **changes).__enter__()
    report = folder / "report.json"
    until(report.exists)
    found = reports.decode(report.read_bytes()).failure
    assert found is not None
    assert "Traceback" not in (folder / "front.log").read_text()
    return found


def test_a_damaged_model_is_reported(tmp_path: Path) -> None:
    path = front_testing.linear(tmp_path / "linear.onnx")
    path.write_bytes(path.read_bytes()[:-10])
    found = failed(tmp_path, path)
    assert (found.reason, found.retry) == (Reason.ARTIFACT_INVALID, False)
    assert "linear.onnx is truncated, damaged or not an ONNX model" in found.message


def test_a_model_that_fails_its_first_inference_is_reported(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([7, 7]), "shape")
    path = front_testing.save(
        tmp_path / "stubborn.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [front_testing.tensor("x", TensorProto.FLOAT, ["rows", 2])],
        [front_testing.tensor("y", TensorProto.FLOAT, [None, None])],
        [shape],
    )
    found = failed(tmp_path, path)
    assert found.reason == Reason.WARMUP_FAILED
    assert found.message.startswith("the first inference of m, with zeros, failed: the model refused the values: ")


def test_an_artifact_that_is_gone_is_reported(tmp_path: Path) -> None:
    front = Front(tmp_path, {"m": front_testing.linear(tmp_path / "linear.onnx")})
    front.__exit__()
    work = works.decode((tmp_path / "work.json").read_bytes()).serve
    assert work is not None
    model = changed(work, digest="sha256:" + "0" * 64)
    status, report = rerun(front, works.WorkSpec(serve=works.ServeWork(models=(model,))))
    assert (status, report.reason) == (1, Reason.ARTIFACT_CHANGED)


def test_a_signature_that_differs_from_the_declared_one_is_reported(tmp_path: Path) -> None:
    front = Front(tmp_path, {"m": front_testing.linear(tmp_path / "linear.onnx")})
    front.__exit__()
    declared = TensorSpec(name="x", datatype="FP64", shape=(-1, 4))
    model = changed(front.work, inputs=(declared,))
    status, report = rerun(front, works.WorkSpec(serve=works.ServeWork(models=(model,))))
    assert (status, report.reason) == (1, Reason.SIGNATURE_MISMATCH)
    assert "the declared inputs are x (FP64 [-1, 4]), and the model has x (FP32 [-1, 4])" in report.message


def test_work_that_is_not_for_it_is_reported(tmp_path: Path) -> None:
    front = Front(tmp_path, {"m": front_testing.linear(tmp_path / "linear.onnx")})
    front.__exit__()
    status, report = rerun(front, works.WorkSpec(prepare=works.PrepareWork(uri="x")))
    assert status == 1
    assert "does not set `serve`" in report.message


def test_a_socket_path_that_is_too_long_is_reported(tmp_path: Path) -> None:
    front = Front(tmp_path, {"m": front_testing.linear(tmp_path / "linear.onnx")})
    front.__exit__()
    front.place = msgspec.structs.replace(front.place, socket=f"{tmp_path}/{'s' * 120}")
    status, report = rerun(front, works.WorkSpec(serve=front.work))
    assert status == 1
    assert "is longer than 107 bytes; choose a shorter folder" in report.message


def test_started_by_hand_it_says_who_starts_it() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "modelyard.runtime.front"],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 2
    assert "MODELYARD_WORK, MODELYARD_REPORT, MODELYARD_CACHE, MODELYARD_SCRATCH must be set" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_signal_while_it_loads_ends_it_quietly(tmp_path: Path) -> None:
    front = Front(tmp_path, {"m": front_testing.slow(tmp_path / "slow.onnx", size=1500, layers=60)})
    try:
        time.sleep(0.05)  # whatever it is doing by now: nothing is promised yet
        front.process.send_signal(signal.SIGTERM)
        assert front.process.wait(timeout=20) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)
        assert "Traceback" not in front.log
    finally:
        front.__exit__()


def changed(work: works.ServeWork, **changes: object) -> works.ModelWork:
    return msgspec.structs.replace(work.models[0], **changes)


def rerun(front: Front, work: works.WorkSpec) -> tuple[int, Failure]:
    """Start again with other work; the exit status and the failure."""
    Path(front.place.work).write_bytes(works.encode(work))
    front.process = front.start()
    try:
        status = front.process.wait(timeout=30)
    finally:
        front.__exit__()
    assert front.report is not None
    assert front.report.failure is not None
    assert "Traceback" not in front.log
    return status, front.report.failure


def test_it_listens_on_nothing_but_its_socket(front: Front) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(front.socket))
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False).stdout
    assert f"pid={front.process.pid}," not in listening
