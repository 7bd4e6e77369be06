"""A front that answers its gateway alone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import front_testing
from front_testing import Client, Front, ask_once, body, call, get, post, until
from s3_testing import free_ports

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
    "path",
    [
        "/v2",
        "/v2/models/linear",
        "/v2/models/linear/ready",
        "/v2/health",
        "/v2/health/ready?x",
        "/metrics/",
        "//metrics",
        "/",
    ],
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


def test_measures_and_health_are_told_to_whoever_may_open_the_socket(front: Front) -> None:
    with front.client() as client:
        assert b"modelyard_" in client.ask(get("/metrics")).content
        assert client.ask(get("/v2/health/live")).json == {"live": True}
        assert client.ask(get("/v2/health/ready")).json == {"ready": True}


def test_the_secret_lies_nowhere(front: Front) -> None:
    assert ask_once(front, post(INFER, body([1, 0, 0, 0]), BEARING)).status == 200
    for name in ("environ", "cmdline"):
        assert SECRET not in Path(f"/proc/{front.process.pid}/{name}").read_text()
    for path in front.folder.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def failure(folder: Path, **place: str) -> str:
    """Of a front that is started there and does not serve."""
    front = Front(folder, {"linear": front_testing.linear(folder / "linear.onnx")}, place=place)
    try:
        assert front.process.wait(timeout=20) == 1
    finally:
        front.__exit__()
    found = front.report
    assert found is not None
    assert found.failure is not None
    return found.failure.message


def test_without_a_good_digest_it_does_not_serve(tmp_path: Path) -> None:
    for digest in ("5", "Z" * 64, "A" * 64):
        told = failure(tmp_path, gateway_digest=digest)
        assert "must be 64 hexadecimal digits" in told


def test_other_machines_are_not_served_without_one(tmp_path: Path) -> None:
    for listen in ("0.0.0.0:0", "[::]:0"):
        told = failure(tmp_path, socket="", listen=listen)
        assert "there is no digest of a gateway's secret" in told


def test_it_listens_at_one_place(tmp_path: Path) -> None:
    assert "either MODELYARD_SOCKET or MODELYARD_LISTEN" in failure(tmp_path, socket="")
    assert "either MODELYARD_SOCKET or MODELYARD_LISTEN" in failure(tmp_path, listen="127.0.0.1:0")
    assert "MODELYARD_LISTEN must be HOST:PORT" in failure(tmp_path, socket="", listen="8080")


def test_it_serves_its_gateway_at_an_address_too(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    place = {"socket": "", "listen": f"0.0.0.0:{port}", "report_listen": "127.0.0.1:0"}
    models = {"linear": front_testing.linear(tmp_path / "linear.onnx")}
    with Front(tmp_path, models, gateway_secret=SECRET, place=place) as front:
        with Client(("127.0.0.1", port)) as client:
            asked = post(INFER, body([1, 0, 0, 0]), BEARING).replace(b"localhost", b"linear.default:8080")
            assert client.ask(asked).status == 200
            probe = get("/v2/health/ready").replace(b"localhost", b"10.0.0.7:8080")
            assert client.ask(probe).status == 200
            for request in (asked.replace(b"555", b"554", 1), get("/v2/models/linear"), call("ServerLive", b"")):
                with Client(("127.0.0.1", port)) as other:
                    answer = other.ask(request)
                    assert answer.status == 403 or answer.refusal[0] == 7
        front.process.terminate()
        until(lambda: "not ready from now on" in front.log)
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            for request, status in ((get("/v2/health/ready"), 503), (get("/v2/health/live"), 200), (asked, 200)):
                with Client(("127.0.0.1", port)) as late:
                    answer = late.ask(request)
                    assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert front.process.wait(timeout=20) == 0
        assert SECRET not in front.log
