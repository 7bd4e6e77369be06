"""A real front process: gRPC's methods over HTTP/1.1, as the gateway sends them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from tritonclient.grpc import service_pb2 as pb2

import front_testing
from front_testing import Client, Front, body, call, get, post

PATH = "/inference.GRPCInferenceService/"
INVALID, NOT_FOUND, EXHAUSTED, UNIMPLEMENTED = 3, 5, 8, 12


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    models = {
        "linear": front_testing.linear(folder / "linear.onnx"),
        "lookup": front_testing.lookup(folder / "lookup.onnx"),
        "text": front_testing.identity(folder / "text.onnx", TensorProto.STRING),
        "half": front_testing.identity(folder / "half.onnx", TensorProto.FLOAT16),
        "flags": front_testing.identity(folder / "flags.onnx", TensorProto.BOOL),
        "ints": front_testing.identity(folder / "ints.onnx", TensorProto.INT64),
        "slow": front_testing.slow(folder / "slow.onnx"),
    }
    with Front(folder, models, max_body_bytes=2**20, max_queue=8, max_batch_rows=16) as found:
        yield found


@pytest.fixture
def client(front: Front) -> Iterator[Client]:
    with front.client() as found:
        yield found


def message(model: str, shape: list[int], datatype: str = "FP32", raw: bytes | None = None, **more: Any) -> bytes:
    contents = {name: more.pop(name) for name in list(more) if name.endswith("_contents")}
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "contents": contents or None}
    request = pb2.ModelInferRequest(model_name=model, inputs=[tensor], **more)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def infer(client: Client, *arguments: Any, **more: Any) -> Any:
    return pb2.ModelInferResponse.FromString(client.ask(call("ModelInfer", message(*arguments, **more))).message)


def test_typed_requests_get_typed_answers_and_their_own_id_and_parameters(client: Client) -> None:
    parameters = {"trace": pb2.InferParameter(string_param="t"), "n": pb2.InferParameter(int64_param=-4)}
    found = infer(client, "linear", [1, 4], fp32_contents=[1, 0, 0, 0], id="mine", parameters=parameters)
    assert (found.model_name, found.model_version, found.id) == ("linear", "3", "mine")
    assert (found.parameters["trace"].string_param, found.parameters["n"].int64_param) == ("t", -4)
    assert not found.raw_output_contents
    output = found.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [1, 3])
    assert list(output.contents.fp32_contents) == [0, 1, 2]
    assert list(infer(client, "flags", [1, 2], "BOOL", bool_contents=[True, False]).outputs[0].contents.bool_contents)
    numbers = [-(2**63), 2**63 - 1]
    found = infer(client, "ints", [1, 2], "INT64", int64_contents=numbers)
    assert list(found.outputs[0].contents.int64_contents) == numbers
    found = infer(client, "text", [1, 2], "BYTES", bytes_contents=["é".encode(), b""])
    assert list(found.outputs[0].contents.bytes_contents) == ["é".encode(), b""]
    # What loses nothing is converted, as for JSON.
    found = infer(client, "ints", [1, 2], "UINT8", uint_contents=[1, 255])
    assert list(found.outputs[0].contents.int64_contents) == [1, 255]


def test_raw_requests_get_raw_answers(client: Client) -> None:
    found = infer(client, "linear", [1, 4], raw=np.eye(1, 4, dtype=np.float32).tobytes())
    assert not found.outputs[0].HasField("contents")
    assert np.frombuffer(found.raw_output_contents[0], np.float32).tolist() == [0, 1, 2]
    half = np.array([1.5, np.inf], np.float16).tobytes()
    assert infer(client, "half", [1, 2], "FP16", raw=half).raw_output_contents[0] == half
    assert infer(client, "flags", [1, 2], "BOOL", raw=b"\x07\0").raw_output_contents[0] == b"\x01\0"
    text = b"\x02\0\0\0\xc3\xa9\0\0\0\0"
    assert infer(client, "text", [1, 2], "BYTES", raw=text).raw_output_contents[0] == text
    # FP16 has no contents: then the answer is raw though the request was not.
    found = infer(client, "half", [1, 2], "FP16", raw=half)
    assert found.outputs[0].datatype == "FP16"


def test_outputs_are_chosen_and_names_echoed(client: Client) -> None:
    found = infer(client, "linear.default", [1, 4], fp32_contents=[1, 0, 0, 0], outputs=[{"name": "y"}])
    assert (found.model_name, [each.name for each in found.outputs]) == ("linear.default", ["y"])
    found = infer(client, "linear", [1, 4], fp32_contents=[1, 0, 0, 0], model_version="3")
    assert found.model_name == "linear"


def test_a_tag_is_answered_where_the_gateway_says_which_version_it_means(client: Client) -> None:
    sent = message("linear", [1, 4], fp32_contents=[1, 0, 0, 0], model_version="canary")
    found = pb2.ModelInferResponse.FromString(client.ask(call("ModelInfer", sent, model="linear/3")).message)
    assert (found.model_name, found.model_version) == ("linear", "3")
    for other in ("linear", "linear/canary", "linear/4"):
        answer = client.ask(call("ModelInfer", sent, model=other))
        assert answer.refusal[0] == NOT_FOUND


def test_metadata_and_health(client: Client) -> None:
    named = pb2.ModelReadyRequest(name="linear").SerializeToString()
    assert pb2.ServerLiveResponse.FromString(client.ask(call("ServerLive", b"")).message).live
    assert pb2.ServerReadyResponse.FromString(client.ask(call("ServerReady", b"")).message).ready
    assert pb2.ServerMetadataResponse.FromString(client.ask(call("ServerMetadata", b"")).message).name == "modelyard"
    assert pb2.ModelReadyResponse.FromString(client.ask(call("ModelReady", named)).message).ready
    found = pb2.ModelMetadataResponse.FromString(client.ask(call("ModelMetadata", named, model="linear")).message)
    assert (found.name, list(found.versions), found.platform) == ("linear", ["3"], "onnx")
    assert [(each.name, each.datatype, list(each.shape)) for each in found.outputs] == [("y", "FP32", [-1, 3])]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (call("ModelInfer", message("nope", [1])), NOT_FOUND, "model 'nope' is not served here"),
        (call("ModelInfer", message("linear", [1], model_version="9")), NOT_FOUND, "has no version '9' here"),
        (call("ModelInfer", b""), INVALID, "model_name: is missing"),
        (
            call("ModelInfer", message("text", [1]), model="linear"),
            INVALID,
            "model_name: is 'text', but the call was sent to 'linear'",
        ),
        (
            call("ModelReady", message("linear.default", [1]), model="linear"),
            INVALID,
            "name: is 'linear.default', but the call was sent to 'linear'",
        ),
        (call("ModelInfer", message("linear", [1, 4], fp32_contents=[1])), INVALID, "the shape [1, 4] says 4"),
        (call("ModelInfer", message("linear", [1, 4], raw=b"1")), INVALID, "raw_input_contents[0]: has 1 bytes"),
        (call("ModelInfer", message("linear", [1, 4], "BF16", raw=b"12")), INVALID, "inputs[0].datatype: 'BF16'"),
        (call("ModelInfer", message("linear", [1, 4])), INVALID, "inputs[0].contents: is missing"),
        (call("ModelInfer", message("half", [1, 2], "FP16")), INVALID, "FP16 has no contents"),
        (call("ModelInfer", message("text", [1, 2], "BYTES", bytes_contents=[b"\xff", b""])), INVALID, "UTF-8"),
        (call("ModelInfer", message("lookup", [1], "INT64", int64_contents=[9])), INVALID, ""),
        (call("ModelInfer", b"\xff"), INVALID, "the message: is cut off"),
        (call("ModelStreamInfer", message("linear", [1])), UNIMPLEMENTED, "there is no method 'ModelStreamInfer'"),
        (call("RepositoryModelUnload", b""), UNIMPLEMENTED, "there is no method"),
        (get(f"{PATH}ServerLive"), UNIMPLEMENTED, "GET is not allowed for a call; use POST"),
        (post(f"{PATH}ServerLive", b""), INVALID, "the call has no message"),
        (post(f"{PATH}ServerLive", b"\1\0\0\0\0"), UNIMPLEMENTED, "compressed messages are not accepted"),
        (post(f"{PATH}ServerLive", b"\0\0\0\0\2x"), INVALID, "it has 1 bytes of 2"),
        (post(f"{PATH}ServerLive", b"\0\0\0\0\0" * 2), INVALID, "more than one message"),
        (call("ModelInfer", bytes(2**20)), EXHAUSTED, "must not exceed 1048576 bytes"),
    ],
)
def test_every_refusal_has_a_status_and_a_sentence(front: Front, asked: bytes, status: int, said: str) -> None:
    found, sentence = front_testing.ask_once(front, asked).refusal
    assert (found, said in sentence) == (status, True), sentence
    assert sentence
    assert "Traceback" not in front.log


def test_calls_and_json_share_a_connection_and_its_order(client: Client) -> None:
    asked = call("ModelInfer", message("linear", [1, 4], fp32_contents=[1, 0, 0, 0]))
    client.send(asked + post("/v2/models/linear/infer", body([[1, 0, 0, 0]])) + call("ModelReady", b"") + asked)
    assert client.read().headers["grpc-status"] == "0"
    assert client.read().json["outputs"][0]["data"] == [0, 1, 2]
    assert client.read().refusal[0] == INVALID
    assert client.read().message


def test_a_full_queue_is_exhausted(front: Front) -> None:
    asked = call("ModelInfer", message("slow", [1, 700], raw=bytes(2800)))
    with front.client() as one, front.client() as two:
        for client in (one, two):
            client.send(asked * 10)
        answers = [client.read() for client in (one, two) for _ in range(10)]
    refusals = [each.refusal for each in answers if each.headers["grpc-status"] != "0"]
    assert refusals
    assert {status for status, _ in refusals} == {EXHAUSTED}
    assert (
        'modelyard_requests_total{model="slow",code="429"}'
        in front_testing.ask_once(front, get("/metrics")).content.decode()
    )


def test_a_message_that_cannot_be_read_counts_for_the_model_that_it_was_sent_to(front: Front) -> None:
    assert front_testing.ask_once(front, call("ModelInfer", b"\xff", model="flags")).refusal[0] == INVALID
    counted = front_testing.ask_once(front, get("/metrics")).content.decode()
    assert 'modelyard_requests_total{model="flags",code="400"} 1' in counted
    assert 'modelyard_requests_in_flight{model="flags"} 0' in counted


def test_a_stopping_server_answers_calls_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    with Front(tmp_path, {"linear": front_testing.linear(tmp_path / "linear.onnx")}, drain_seconds=5) as front:
        with front.client() as client:
            assert client.ask(call("ServerReady", b"")).message == b"\x08\x01"
            front.process.terminate()
            front_testing.until(lambda: client.ask(call("ServerReady", b"")).message == b"", 5)
