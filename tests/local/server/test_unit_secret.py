"""No way round the gateway: replicas answer it alone, and nobody but the two of them learns why."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.linear_model import LogisticRegression
from tritonclient.grpc import InferenceServerClient

from front_testing import Client, body, call, get, post
from grpc_testing import tensor
from modelyard.control.ir.unit_secret import unit_secret
from modelyard.server import gateway_key
from yard_testing import INPUT, Yard, service, wait_until, write_onnx

PLUS = "/v2/models/plus/infer"


def socket_of(yard: Yard, name: str) -> Path:
    (replica,) = {each.environ()["MODELYARD_SOCKET"] for each in yard.replicas(name) if _is_front(each)}
    return Path(replica)


def _is_front(process: psutil.Process) -> bool:
    return "modelyard.runtime.front" in process.cmdline()


def secret_of(yard: Yard, unit: str) -> str:
    return unit_secret(gateway_key.read(yard.data / "server"), unit)


@pytest.mark.timeout(180)
def test_a_replica_answers_what_comes_through_the_gateway_and_nothing_else(tmp_path: Path) -> None:
    write_onnx(tmp_path / "one.onnx", 1.0)
    asked = body([1.0, 2.0], name="X", shape=(1, 2))
    with Yard(tmp_path) as yard:
        yard.apply(service("plus", model={"uri": "one.onnx"}))
        assert yard.predict("plus") == 1.0
        with InferenceServerClient(yard.url.removeprefix("http://")) as grpc:
            assert grpc.infer("plus", [tensor(INPUT, "X")]).as_numpy("y")[0, 0] == INPUT[0, 0] + 1
        path = socket_of(yard, "plus")
        other = f"x-modelyard-gateway: {secret_of(yard, 'plus-svc-00002.default')}\r\n"
        for request in (post(PLUS, asked), post(PLUS, asked, other), get("/v2/models/plus"), call("ServerLive", b"")):
            with Client(path) as client:
                answer = client.ask(request)
            assert answer.status == 403 or answer.refusal[0] == 7
        with Client(path) as client:
            own = f"x-modelyard-gateway: {secret_of(yard, 'plus-svc-00001.default')}\r\n"
            assert client.ask(post(PLUS, asked, own)).status == 200
        told = _everything_that_is_told(yard)
        assert secret_of(yard, "plus-svc-00001.default") not in told
        assert gateway_key.read(yard.data / "server").hex() not in told


def _everything_that_is_told(yard: Yard) -> str:
    """Objects, logs, command lines, environments."""
    found = [yard.cli("get", kind, "-A", "-o", "json") for kind in ("modelservices", "models", "events")]
    found += [yard.cli("describe", "modelservice", "plus")]
    found += [path.read_text(errors="replace") for path in yard.data.rglob("*.log*")]
    store = yard.data / "server"
    found += [path.read_bytes().decode("latin-1") for path in store.iterdir() if path.name.startswith("store.db")]
    for process in (psutil.Process(yard.pid), *yard.children()):
        found += [*process.cmdline(), str(process.environ())]
    found += [path.read_text(errors="replace") for path in (yard.data / "work").rglob("*") if path.is_file()]
    return "\n".join([*found, (yard.folder / "up.log").read_text()])


class Curious:
    """A model that looks for secrets where it is loaded."""

    def __init__(self, model: Any, data: Path, notes: Path) -> None:
        self.code = (
            f"(__import__('pathlib').Path({str(notes)!r}).open('a').write(repr("
            f"sorted(map(str, __import__('pathlib').Path({str(data)!r}).glob('work/*/secrets/*/*')))) + chr(10)), "
            f"__import__('pickle').loads({pickle.dumps(model)!r}))[1]"
        )

    def __reduce__(self) -> Any:
        return eval, (self.code,)


@pytest.mark.timeout(180)
def test_a_model_that_runs_code_finds_no_secret(tmp_path: Path) -> None:
    model = LogisticRegression().fit(np.array([[0.0, 0.0], [1.0, 1.0]]), [0, 1])
    notes = tmp_path / "notes"
    (tmp_path / "curious.pkl").write_bytes(pickle.dumps(Curious(model, tmp_path / ".modelyard", notes)))
    with Yard(tmp_path) as yard:
        yard.apply(service("curious", model={"uri": "curious.pkl", "trust": "pickle"}))
        (front,) = filter(_is_front, yard.replicas("curious"))
        before = len(notes.read_text().splitlines())
        front.kill()
        wait_until(lambda: len(notes.read_text().splitlines()) > before, "the model is loaded again")
    assert set(notes.read_text().splitlines()) == {"[]"}
