"""gRPC on a server as a user starts it: a model that was applied is called by its name, on the port that HTTP has."""

import threading
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from grpc_testing import tensor
from yard_testing import INPUT, Yard, service, wait_until, write_onnx


@pytest.mark.timeout(180)
def test_a_rollout_loses_no_call_of_tritons_client(tmp_path: Path) -> None:
    write_onnx(tmp_path / "one.onnx", 1.0)
    write_onnx(tmp_path / "two.onnx", 2.0)
    answers: list[float] = []
    failures: list[str] = []
    ends = threading.Event()

    def ask(client: InferenceServerClient) -> None:
        while not ends.is_set():
            try:
                found = client.infer("plus", [tensor(INPUT, "X")], client_timeout=30)
                answers.append(float(found.as_numpy("y")[0, 0] - INPUT[0, 0]))
            except InferenceServerException as error:
                failures.append(str(error))

    with Yard(tmp_path) as yard, InferenceServerClient(yard.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        with pytest.raises(InferenceServerException, match="no model of this name is served"):
            client.is_model_ready("plus")
        yard.apply(service("plus", model={"uri": "one.onnx"}, replicas=2))
        assert client.is_model_ready("plus.default")
        asking = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
        for each in asking:
            each.start()
        try:
            wait_until(lambda: len(answers) > 20, "answers")
            yard.apply(service("plus", model={"uri": "two.onnx"}, replicas=2))
            wait_until(lambda: answers[-20:] == [2.0] * 20, "answers of the other model")
        finally:
            ends.set()
            for each in asking:
                each.join()
    assert failures == []
    assert set(answers) == {1.0, 2.0}
