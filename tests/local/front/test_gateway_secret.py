"""A front that answers its gateway alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import front_testing
from front_testing import Front, ask_once, body, call, get, post, until
from modelyard.wire import work as works

SECRET = "5" * 64
BEARING = f"x-modelyard-gateway: {SECRET}\r\n"
INFER = "/v2/models/linear/infer"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    models = {"linear": front_testing.linear(tmp_path / "linear.onnx")}
    with Front(tmp_path, models, gateway_secret=SECRET) as found:
        yield found
        assert "Traceback" not in found.log
        assert SECRET not in found.log


def test_requests_of_the_gateway_are_answered_one_after_the_other(front: Front) -> None:
    with front.client() as client:
        for header in (BEARING, BEARING.replace("x-modelyard-gateway", "X-Modelyard-Gateway")):
            assert client.ask(post(INFER, body([1, 0, 0, 0]), header)).status == 200
        assert client.ask(get("/v2/health/ready", BEARING)).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x-modelyard-gateway:\r\n",
        "x-modelyard-gateway: \xe9\r\n",
        f"x-modelyard-gateway: {SECRET[:-1]}\r\n",
        f"x-modelyard-gateway: {SECRET}0\r\n",
        f"x-modelyard-gatewa: {SECRET}\r\n",
        f"x-modelyard-gateway: {SECRET}, {SECRET}\r\n",
    ],
)
def test_requests_without_its_secret_are_refused(front: Front, header: str) -> None:
    request = post(INFER, body([1, 0, 0, 0]), "@").replace(b"@", header.encode("latin-1"))
    answer = ask_once(front, request)
    assert (answer.status, answer.headers["connection"]) == (403, "close")
    assert answer.error == "requests go through the gateway: status.url of the ModelService is its address"


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/models/linear", "/v2/models/linear/ready", "/v2/health/ready", "/metrics/", "//metrics", "/"]
)
def test_everything_else_is_refused_too(front: Front, path: str) -> None:
    assert ask_once(front, get(path)).status == 403


def test_a_large_request_is_refused_before_it_was_sent(front: Front) -> None:
    with front.client() as client:
        client.send(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n".encode())
        assert client.read().status == 403


def test_a_call_of_grpc_is_refused_with_a_status_of_grpc(front: Front) -> None:
    status, sentence = ask_once(front, call("ServerLive", b"")).refusal
    assert (status, sentence[:31]) == (7, "requests go through the gateway")


def test_measures_stay_readable_for_whoever_may_open_the_socket(front: Front) -> None:
    assert b"modelyard_" in ask_once(front, get("/metrics")).content


def test_the_file_is_gone_once_it_serves(front: Front) -> None:
    folder = Path(front.place.secrets) / works.GATEWAY_ROLE
    assert list(folder.iterdir()) == []
    assert SECRET not in Path(f"/proc/{front.process.pid}/environ").read_text()
    assert SECRET not in Path(f"/proc/{front.process.pid}/cmdline").read_text()


def test_where_there_should_be_a_secret_it_does_not_serve_without_one(tmp_path: Path) -> None:
    models = {"linear": front_testing.linear(tmp_path / "linear.onnx")}
    front = Front(tmp_path, models, gateway_secret="\n")
    try:
        until(lambda: front.process.poll() is not None)
    finally:
        front.__exit__()
    assert front.process.returncode == 1
    found = front.report
    assert found is not None
    assert found.failure is not None
    assert "must hold a file secret with the secret of the gateway" in found.failure.message
