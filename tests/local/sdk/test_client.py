import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import modelyard
from modelyard.base.errors import RetryLater, UserError
from modelyard.sdk.client import Client
from sdk_testing import Gateway, gateway

BUSY = (503, {"Retry-After": "0"}, b'{"error":"model digits is starting"}')


@pytest.fixture
def server() -> Iterator[Gateway]:
    with gateway() as found:
        yield found


@pytest.fixture
def client(server: Gateway) -> Iterator[Client]:
    with modelyard.Client(server.url, timeout=10) as found:
        yield found


def test_inputs_by_name_give_outputs_by_name(client: Client) -> None:
    found = client.predict("digits", {"X": [[1, 2], [3, 4]]})
    assert list(found) == ["label", "probabilities"]
    assert found["label"].dtype == np.int64
    assert found["label"].tolist() == [1, 3]
    assert found["probabilities"].shape == (2, 2)


def test_an_array_alone_gives_an_array_where_there_is_one_output(client: Client) -> None:
    found = client.predict("double", np.array([1, 2]))
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [2, 4]
    assert isinstance(client.predict("digits", np.zeros((1, 2))), dict)


def test_the_signature_is_read_once_and_the_connection_is_kept(client: Client, server: Gateway) -> None:
    for _ in range(5):
        client.predict("double", [1])
    assert [method for method, _, _ in server.requests] == ["GET"] + ["POST"] * 5
    assert server.connections == 1


def test_the_servers_sentence_is_the_error(client: Client, server: Gateway) -> None:
    with pytest.raises(UserError, match=r"^there is no model nope$"):
        client.predict("nope", [1])
    server.script.append((400, {}, b'{"error":"inputs[0].data: too long"}'))
    with pytest.raises(UserError, match=r"inputs\[0\].data: too long"):
        client.predict("digits", [[1, 2]])
    server.script.append((500, {}, b"<html>"))
    with pytest.raises(RetryLater, match="answered with status 500"):
        client.predict("digits", [[1, 2]])


def test_an_overloaded_model_is_asked_again(client: Client, server: Gateway) -> None:
    server.script += [BUSY, BUSY, (429, {"Retry-After": "0"}, b"{}")]
    assert client.predict("double", [4]) == [8]


def test_nothing_is_asked_again_when_that_is_not_wanted(server: Gateway) -> None:
    with Client(server.url, retry=False) as client:
        server.script.append((503, {"Retry-After": "7"}, b'{"error":"model digits is starting"}'))
        with pytest.raises(RetryLater, match="model digits is starting") as caught:
            client.predict("digits", [[1, 2]])
        assert caught.value.retry_after_seconds == 7


def test_nothing_is_asked_again_where_the_server_does_not_say_when(client: Client, server: Gateway) -> None:
    server.script.append((503, {}, b'{"error":"gone"}'))
    with pytest.raises(RetryLater, match="gone"):
        client.predict("digits", [[1, 2]])


def test_asking_again_ends_with_the_timeout(server: Gateway) -> None:
    with Client(server.url, timeout=0.3) as client:
        server.script += [(503, {"Retry-After": "0"}, b'{"error":"busy"}')] * 50
        started = time.monotonic()
        with pytest.raises(RetryLater, match="busy"):
            client.predict("digits", [[1, 2]])
        assert time.monotonic() - started < 5


def test_a_kept_connection_that_the_server_closed_is_not_a_failure(client: Client, server: Gateway) -> None:
    server.hang_up = True
    for value in range(3):
        assert client.predict("double", [value]) == [2 * value]
    assert server.connections == 4


def test_a_model_with_other_inputs_is_noticed(client: Client, server: Gateway) -> None:
    client.predict("double", [1])
    server.models["double"] = {
        **server.models["double"],
        "inputs": [{"name": "z", "datatype": "INT64", "shape": [-1]}],
    }
    assert client.predict("double", {"z": [3]})["y"].tolist() == [6]
    assert json.loads(server.requests[-1][2])["inputs"][0]["datatype"] == "INT64"


def test_ready_tells_a_waiting_model_from_an_unknown_one(client: Client, server: Gateway) -> None:
    assert client.ready("digits")
    server.script.append(BUSY)
    assert not client.ready("digits")
    with pytest.raises(UserError, match="there is no model nope"):
        client.ready("nope")


def test_nobody_listening_is_said_with_the_next_step() -> None:
    with pytest.raises(RetryLater, match=r"nothing listens at http://127.0.0.1:9; is 'modelyard up' running"):
        Client("http://127.0.0.1:9").metadata("x")
    with pytest.raises(UserError, match="expected http://HOST:PORT"):
        Client("127.0.0.1:9")


def test_threads_share_a_client(client: Client) -> None:
    wrong: list[int] = []

    def work(value: int) -> None:
        for _ in range(20):
            found = client.predict("double", [value])
            if found != [2 * value]:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_name_is_one_element_of_the_path(client: Client, server: Gateway) -> None:
    with pytest.raises(UserError):
        client.metadata("a/../b?c")
    assert server.requests[-1][1] == "/v2/models/a%2F..%2Fb%3Fc"
