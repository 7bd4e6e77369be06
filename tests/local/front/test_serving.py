"""A real front process: what it answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto

import front_testing
from front_testing import Client, Front, body, get, post

INFER = "/v2/models/linear/infer"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    models = {
        "linear": front_testing.linear(folder / "linear.onnx"),
        "softmax": front_testing.softmax_over_rows(folder / "softmax.onnx"),
        "lookup": front_testing.lookup(folder / "lookup.onnx"),
        "text": front_testing.identity(folder / "text.onnx", TensorProto.STRING),
        "wide": front_testing.identity(folder / "wide.onnx", TensorProto.DOUBLE),
        "half": front_testing.identity(folder / "half.onnx", TensorProto.FLOAT16),
        "flags": front_testing.identity(folder / "flags.onnx", TensorProto.BOOL),
        "slow": front_testing.slow(folder / "slow.onnx"),
    }
    with Front(folder, models, max_body_bytes=2**20, max_queue=8, max_batch_rows=16) as found:
        yield found


@pytest.fixture
def client(front: Front) -> Iterator[Client]:
    with front.client() as found:
        yield found


def test_a_request_is_answered_with_the_models_outputs_and_its_own_id(client: Client) -> None:
    answer = client.ask(post(INFER, body([[1, 0, 0, 0], [0, 1, 0, 0]], shape=(2, 4), id="mine")))
    assert answer.status == 200
    assert answer.json == {
        "model_name": "linear",
        "model_version": "3",
        "id": "mine",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0, 1, 2, 1, 2, 3]}],
    }
    assert answer.headers["content-type"] == "application/json"


def test_answers_echo_the_name_that_was_sent(client: Client) -> None:
    assert (
        client.ask(post("/v2/models/linear.default/infer", body([1, 2, 3, 4]))).json["model_name"] == "linear.default"
    )
    answer = client.ask(post("/v2/models/linear/versions/3/infer", body([1, 2, 3, 4])))
    assert (answer.status, answer.json["model_name"]) == (200, "linear")


def test_metadata_and_health_are_what_clients_expect(client: Client) -> None:
    assert client.ask(get("/v2/models/linear")).json == {
        "name": "linear",
        "versions": ["3"],
        "platform": "onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert client.ask(get("/v2/models/linear.default/versions/3/ready")).json == {
        "name": "linear.default",
        "ready": True,
    }
    assert client.ask(get("/v2/health/live")).json == {"live": True}
    assert client.ask(get("/v2/health/ready?verbose")).json == {"ready": True}
    for path in ("/v2", "/v2/"):
        assert client.ask(get(path)).json["name"] == "modelyard"


def test_a_head_request_gets_no_body(client: Client) -> None:
    client.send(b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.read(head=True).status == 200
    assert client.ask(get("/v2/health/live")).status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status", "sentence"),
    [
        (get("/v2/models/nobody"), 404, "model 'nobody' is not served here"),
        (post("/v2/models/nobody/infer", b"{}"), 404, "model 'nobody' is not served here"),
        (get("/v2/models/linear/versions/9"), 404, "model 'linear' has no version '9' here; it has '3'"),
        (get("/v2/models/linear/nothing"), 404, "there is nothing at /v2/models/linear/nothing"),
        (get("/"), 404, "there is nothing at /; models are at /v2/models/NAME"),
        (get("/v2/models/%2e%2e/x%00"), 404, "model '%2e%2e' is not served here"),
        (get(INFER), 405, "GET is not allowed for /v2/models/linear/infer; use POST"),
        (post("/v2", b""), 405, "POST is not allowed for /v2; use GET"),
        (post(INFER, b"{"), 400, "the body: is not valid JSON"),
        (post(INFER, b""), 400, "the body: is not valid JSON"),
        (post(INFER, b'{"inputs":[]}'), 400, "inputs: 'x' is missing; the model takes 'x'"),
        (post(INFER, body([1, 2, 3, 4], name="z")), 400, "inputs[0].name: the model has no input 'z'; it takes 'x'"),
        (post(INFER, body([1, 2, 3])), 400, "inputs[0].data: has 3 elements, but the shape [1, 4] says 4"),
        (post(INFER, body([1, 2, 3], shape=(1, 3))), 400, "inputs[0].shape: [1, 3] does not fit 'x'"),
        (post(INFER, body([1, 2, 3, "4"])), 400, "inputs[0].data[3]: expected float, got str"),
        (post(INFER, body([1, 2, 3, 4], datatype="FP64")), 400, "inputs[0].datatype: 'FP64' cannot be sent to 'x'"),
        (post(INFER, body([1, 2, 3, 4], outputs=[{"name": "z"}])), 400, "outputs[0].name: the model has no output 'z'"),
        (post("/v2/models/lookup/infer", body([7], datatype="INT64", shape=(1,))), 400, "the model refused the values"),
        (post(INFER, b"\x1f\x8b", "Content-Encoding: gzip\r\n"), 400, "Content-Encoding"),
        (post(INFER, b"{}", "Inference-Header-Content-Length: 2\r\n"), 400, "binary_data=False"),
        (post(INFER, b"0" * (2**20 + 1)), 413, "must not exceed 1048576 bytes"),
        (get("/v2", f"X-Long: {'a' * 17_000}\r\n"), 431, "must not exceed 16384 bytes"),
        (b"GET /v2 HTTP/9.9\r\n\r\n", 400, "not valid HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "not valid HTTP/1.1"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "Upgrade and CONNECT"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(client: Client, request_bytes: bytes, status: int, sentence: str) -> None:
    answer = client.ask(request_bytes)
    assert answer.status == status
    assert sentence in answer.error
    assert "\n" not in answer.error
    assert "Traceback" not in answer.error


def test_a_405_names_the_method_that_is_allowed(client: Client) -> None:
    assert client.ask(get(INFER)).headers["allow"] == "POST"


def test_every_datatype_crosses_the_model_unchanged(client: Client) -> None:
    def there_and_back(model: str, datatype: str, data: list[object]) -> list[object]:
        answer = client.ask(post(f"/v2/models/{model}/infer", body(data, datatype=datatype, shape=(1, 2))))
        assert answer.status == 200, answer.content
        return list(answer.json["outputs"][0]["data"])

    assert there_and_back("text", "BYTES", ["é", ""]) == ["é", ""]
    assert there_and_back("wide", "FP64", [0.1, -1e300]) == [0.1, -1e300]
    assert there_and_back("wide", "FP32", [0.5, 2]) == [0.5, 2]
    assert there_and_back("wide", "INT32", [-(2**31), 7]) == [-(2**31), 7]
    assert there_and_back("half", "FP16", [0.5, -65504]) == [0.5, -65504]
    assert there_and_back("flags", "BOOL", [True, False]) == [True, False]


def test_more_rows_than_fit_in_one_call_are_answered_too(client: Client) -> None:
    rows = [[float(row), 0, 0, 0] for row in range(50)]
    answer = client.ask(post(INFER, body(rows, shape=(50, 4))))
    assert answer.json["outputs"][0]["shape"] == [50, 3]
    assert answer.json["outputs"][0]["data"][1::3] == [float(row) for row in range(50)]


def test_a_model_whose_rows_depend_on_each_other_is_never_batched(front: Front) -> None:
    assert "softmax: two rows in one call give other answers" in front.log
    request = post("/v2/models/softmax/infer", body([1, 2], shape=(1, 2)))
    with front.client() as client:
        client.send(request * 6)
        for _ in range(6):
            assert client.read().json["outputs"][0]["data"] == [1, 1]


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    client.send(b"".join(post(INFER, body([i, 0, 0, 0], id=str(i))) + get("/v2/health/live") for i in range(100)))
    for i in range(100):
        assert client.read().json["id"] == str(i)
        assert client.read().json == {"live": True}


def test_a_request_may_arrive_byte_by_byte_and_chunked(client: Client) -> None:
    content = body([1, 2, 3, 4])
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in content)
    request = b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    for byte in request + b"0\r\nTrailer: 1\r\n\r\n":
        client.send(bytes([byte]))
    assert client.read().status == 200


def test_a_chunked_body_over_the_limit_is_refused(client: Client) -> None:
    client.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send((b"10000\r\n" + b" " * 65536 + b"\r\n") * 17)
    assert client.read().status == 413


@pytest.mark.parametrize("ending", [b"X-Long: ", b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ", b""])
def test_headers_and_trailers_that_never_end_are_cut_off(client: Client, ending: bytes) -> None:
    client.send(b"POST /v2 HTTP/1.1\r\n" + ending)
    for _ in range(12):
        client.send(b"a" * 2**15)
        if client.arrived(0.05):
            break
    assert client.read().status in (400, 431)


def test_a_request_with_two_lengths_is_refused(client: Client) -> None:
    client.send(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert client.read().status == 400
    assert client.closed()


def test_expect_continue_is_answered_before_the_body_is_sent(client: Client) -> None:
    content = body([1, 2, 3, 4])
    head, _, _ = post(INFER, content, "Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.read().status == 100
    client.send(content)
    assert client.read().status == 200


def test_expect_continue_for_a_body_that_is_too_large_is_refused_at_once(client: Client) -> None:
    client.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n".encode())
    assert client.read().status == 413


def test_a_client_that_asks_to_close_is_closed_after_its_answer(client: Client) -> None:
    answer = client.ask(get("/v2", "Connection: close\r\n"))
    assert answer.headers["connection"] == "close"
    assert client.closed()


def test_metrics_count_requests_codes_batches_and_queues(front: Front, client: Client) -> None:
    client.ask(post(INFER, body([1, 2, 3, 4])))
    client.ask(post(INFER, b"{"))
    answer = client.ask(get("/metrics"))
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in answer.content.decode().splitlines() if not line.startswith("#"))
    assert int(lines['modelyard_requests_total{model="linear",code="200"}']) >= 1
    assert int(lines['modelyard_requests_total{model="linear",code="400"}']) >= 1
    assert lines['modelyard_requests_in_flight{model="linear"}'] == "0"
    assert lines['modelyard_queue_length{model="linear"}'] == "0"
    assert (
        lines['modelyard_request_duration_seconds_bucket{model="linear",le="+Inf"}']
        == lines['modelyard_request_duration_seconds_count{model="linear"}']
    )
    assert float(lines['modelyard_batch_rows_sum{model="linear"}']) >= 1


def test_more_requests_than_the_queue_holds_get_429_and_none_is_lost(front: Front) -> None:
    request = post("/v2/models/slow/infer", body([0.5] * 700, shape=(1, 700)))
    clients = [front.client() for _ in range(40)]
    try:
        for client in clients:
            client.send(request)
        answers = [client.read() for client in clients]
    finally:
        for client in clients:
            client.__exit__()
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.status for answer in answers} == {200, 429}
    assert all(answer.headers["retry-after"] == "1" and "waiting" in answer.error for answer in refused)


def test_the_requests_of_clients_that_went_away_are_dropped_from_the_queue(front: Front, client: Client) -> None:
    request = post("/v2/models/slow/infer", body([0.5] * 700, shape=(1, 700)))
    for _ in range(30):
        with front.client() as gone:
            gone.send(request)
    assert client.ask(request).status in (200, 429)
    front_testing.until(lambda: b'modelyard_requests_in_flight{model="slow"} 0' in client.ask(get("/metrics")).content)
    assert b'modelyard_requests_total{model="slow",code="499"}' in client.ask(get("/metrics")).content


def test_the_socket_is_for_this_user_only(front: Front) -> None:
    assert front.socket.stat().st_mode & 0o777 == 0o600


def test_the_report_names_the_models(front: Front) -> None:
    assert front.report is not None
    assert front.report.serve is not None
    assert "linear" in front.report.serve.models
    assert Path(front.place.report).stat().st_mode & 0o777 == 0o600
