"""gRPC through the gateway, with the client that people have: Triton's, unmodified."""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import grpc
import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio
from onnx import TensorProto
from tritonclient.grpc import InferRequestedOutput, service_pb2
from tritonclient.utils import InferenceServerException

import front_testing
import grpc_testing
import modelyard
from front_testing import Front
from gateway_testing import becomes_true, upstream
from grpc_testing import CallLoad, Served, tensor
from modelyard.testing.gateway_suite import IRIS, route

PATH = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with grpc_testing.short_folder() as folder:
        models = {
            "linear": front_testing.linear(folder / "linear.onnx"),
            "text": front_testing.identity(folder / "text.onnx", TensorProto.STRING),
            "half": front_testing.identity(folder / "half.onnx", TensorProto.FLOAT16),
            "wide": front_testing.identity(folder / "wide.onnx", TensorProto.FLOAT, ("rows", "more")),
        }
        with Front(folder, models) as found:
            yield found


@pytest.fixture
async def rig(front: Front, run_folder: Path) -> AsyncIterator[Served]:
    async with grpc_testing.served(run_folder) as found:
        for name in ("linear", "text", "half", "wide"):
            await found.serve(name, "unit", front)
        yield found


@pytest.fixture
async def client(rig: Served) -> AsyncIterator[aio.InferenceServerClient]:
    found = aio.InferenceServerClient(rig.address)
    yield found
    await found.close()


Metadata = tuple[tuple[str, str], ...]


async def called(rig: Served, method: str, message: bytes, metadata: Metadata = ()) -> bytes:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        answer: bytes = await channel.unary_unary(method, bytes, bytes)(message, timeout=20, metadata=metadata)
    return answer


async def refused(rig: Served, method: str, message: bytes, metadata: Metadata = ()) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await called(rig, method, message, metadata)
    return caught.value.code(), caught.value.details() or ""


async def answered_more(load: CallLoad, count: int) -> None:
    goal = load.answered.total() + count
    await becomes_true(lambda: load.answered.total() >= goal)


async def test_the_client_asks_about_the_server_and_its_models(client: aio.InferenceServerClient) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert (await client.get_server_metadata()).version == modelyard.__version__
    assert await client.is_model_ready("linear")
    assert await client.is_model_ready("linear.default", "3")
    found = await client.get_model_metadata("linear.default", as_json=True)
    assert (found["name"], found["versions"], found["platform"]) == ("linear.default", ["3"], "onnx")
    assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]


async def test_the_client_gets_answers(client: aio.InferenceServerClient) -> None:
    rows = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    found = await client.infer("linear", [tensor(rows)], request_id="mine")
    assert found.as_numpy("y").tolist() == [[0, 1, 2], [1, 2, 3]]
    response = found.get_response()
    assert (response.model_name, response.model_version, response.id) == ("linear", "3", "mine")
    wanted = await client.infer("linear.default", [tensor(rows)], "3", [InferRequestedOutput("y")])
    assert wanted.as_numpy("y").shape == (2, 3)
    texts = np.array([["é", ""], ["b", "c" * 300]], object)
    text = await client.infer("text", [tensor(texts, datatype="BYTES")])
    assert [each.decode() for each in text.as_numpy("y").ravel()] == list(texts.ravel())
    half = await client.infer("half", [tensor(np.array([[1.5, -2]], np.float16), datatype="FP16")])
    assert half.as_numpy("y").tolist() == [[1.5, -2]]


async def test_the_client_without_asyncio_gets_answers_in_many_threads(rig: Served) -> None:
    def ask(number: int) -> bool:
        with triton.InferenceServerClient(rig.address) as client:
            assert client.is_model_ready("linear")
            found = client.infer("linear", [tensor(np.full((1, 4), number, np.float32))])
            return bool((found.as_numpy("y") == number * np.array([[6, 10, 14]])).all())

    with ThreadPoolExecutor(4) as pool:
        loop = asyncio.get_running_loop()
        assert all(await asyncio.gather(*(loop.run_in_executor(pool, ask, number) for number in range(8))))


async def test_large_tensors_go_both_ways(client: aio.InferenceServerClient) -> None:
    rows = np.arange(3 * 2**20, dtype=np.float32).reshape(3, -1)
    found = await client.infer("wide", [tensor(rows)])
    assert np.array_equal(found.as_numpy("y"), rows)


async def test_a_request_that_is_too_large_is_told_so(rig: Served, client: aio.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="too large") as caught:
        await client.infer("wide", [tensor(np.zeros((1, 17 * 2**20), np.float32))])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"


async def test_what_the_model_refuses_names_the_field(client: aio.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\.shape: \[1, 5\] does not fit 'x'") as caught:
        await client.infer("linear", [tensor(np.zeros((1, 5), np.float32))])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="has no version '9' here") as caught:
        await client.infer("linear", [tensor(np.zeros((1, 4), np.float32))], "9")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    ranked = [InferRequestedOutput("y", class_count=2)]
    with pytest.raises(InferenceServerException, match=r"outputs\[0\]\.parameters\.classification: is not supported"):
        await client.infer("linear", [tensor(np.zeros((1, 4), np.float32))], outputs=ranked)


@pytest.mark.parametrize("name", ["nope", "linear.other", "live", "~", "-", "..", "a/b", "linear?x=1", "Linear", "é"])
async def test_an_unknown_model_is_not_found(rig: Served, name: str) -> None:
    for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
        message = service_pb2.ModelReadyRequest(name=name).SerializeToString()
        code, said = await refused(rig, PATH + method, message)
        assert code is grpc.StatusCode.NOT_FOUND
        assert "no model of this name is served" in said


@pytest.mark.parametrize(
    ("method", "message", "code", "said"),
    [
        ("ModelInfer", b"", "INVALID_ARGUMENT", "model_name: is missing"),
        ("ModelInfer", b"\x08\x04", "INVALID_ARGUMENT", "model_name: is missing or not readable"),
        ("ModelInfer", b"\xff\xff\xff", "INVALID_ARGUMENT", "model_name: is missing or not readable"),
        ("ModelInfer", b"\x0a\x06linear\x2a\x7f", "INVALID_ARGUMENT", "cut off"),
        ("ModelInfer", b"\x0a\x06linear\x1b", "INVALID_ARGUMENT", "wire type 3"),
        ("ModelInfer", b"\x0a\x06linear", "INVALID_ARGUMENT", "inputs: 'x' is missing"),
        ("ModelReady", b"\x0a\x06linear\x10\x01", "INVALID_ARGUMENT", "version: expected a string"),
        ("ModelInfer/linear", b"\x0a\x04text", "INVALID_ARGUMENT", "should be in form of"),
        ("ModelInfer/", b"\x0a\x06linear", "INVALID_ARGUMENT", "should be in form of"),
        ("ServerLive/x", b"", "INVALID_ARGUMENT", "should be in form of"),
        ("ModelConfig", b"\x0a\x06linear", "UNIMPLEMENTED", "there is no method"),
        ("Nonsense", b"", "UNIMPLEMENTED", "has ServerLive"),
        ("ModelInfer?x", b"\x0a\x06linear", "UNIMPLEMENTED", "there is no method"),
    ],
)
async def test_odd_calls_get_a_status_and_a_sentence(
    rig: Served, method: str, message: bytes, code: str, said: str
) -> None:
    found, sentence = await refused(rig, PATH + method, message)
    assert found.name == code
    assert said in sentence


async def test_a_name_that_is_there_twice_reaches_the_last_one_only(rig: Served) -> None:
    tail = service_pb2.ModelReadyRequest(name="nope").SerializeToString()
    code, _ = await refused(rig, f"{PATH}ModelReady", b"\x0a\x06linear" + tail)
    assert code is grpc.StatusCode.NOT_FOUND
    assert await called(rig, f"{PATH}ModelReady", tail + b"\x0a\x06linear") == b"\x08\x01"


async def test_compressed_and_streamed_calls_are_not_implemented(
    rig: Served, client: aio.InferenceServerClient
) -> None:
    with pytest.raises(InferenceServerException, match="compressed messages are not accepted") as caught:
        await client.infer("linear", [tensor(np.zeros((100, 4), np.float32))], compression_algorithm="gzip")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    async with grpc.aio.insecure_channel(rig.address) as channel:
        message = service_pb2.ModelInferRequest(model_name="linear").SerializeToString()
        stream = channel.stream_stream(f"{PATH}ModelStreamInfer", bytes, bytes)
        code, _ = await _streamed(lambda: stream(iter([message])).read())
        assert code is grpc.StatusCode.UNIMPLEMENTED
        unary = channel.stream_unary(f"{PATH}ModelInfer", bytes, bytes)
        _, said = await _streamed(lambda: unary(iter([message, message])))
        assert "more than one message" in said
        code, _ = await _streamed(lambda: unary(iter([])))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


async def _streamed(call: Callable[[], Awaitable[object]]) -> tuple[grpc.StatusCode, str]:
    """How it was refused. The client itself fails where the answer comes before it has sent everything: asked again."""
    for _ in range(20):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call()
        if refusal.value.details() != "Internal error from Core":
            return refusal.value.code(), str(refusal.value.details())
    raise AssertionError("the client never got to read an answer")


async def test_no_replica_is_unavailable(rig: Served, client: aio.InferenceServerClient) -> None:
    off = msgspec.structs.replace(route(IRIS), unavailable="iris is suspended; resume it")
    await rig.publish(iris=off)
    with pytest.raises(InferenceServerException, match="iris is suspended; resume it") as caught:
        await client.is_model_ready("iris")
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    await rig.serve("linear", "nobody")
    with pytest.raises(InferenceServerException, match="no replica of this model is ready") as caught:
        await client.infer("linear", [tensor(np.zeros((1, 4), np.float32))])
    assert caught.value.status() == "StatusCode.UNAVAILABLE"


async def test_a_slow_model_exceeds_the_deadline(rig: Served, run_folder: Path) -> None:
    async with upstream(run_folder / "held.sock", "held") as held:
        held.hold()
        slow = msgspec.structs.replace(route(IRIS, "held"), timeout_seconds=0.2)
        rig.add("held", held.address)
        await rig.publish(iris=slow)
        code, said = await refused(rig, f"{PATH}ModelReady", b"\x0a\x04iris")
        held.release()
        assert (code, "spec.timeout" in said) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)


@pytest.mark.parametrize(
    ("metadata", "code"),
    [((("origin", "https://example.com"),), "PERMISSION_DENIED"), ((("x-auth-sub", "admin"),), "OK")],
)
async def test_web_pages_may_not_call(rig: Served, metadata: Metadata, code: str) -> None:
    if code == "OK":
        assert await called(rig, f"{PATH}ModelReady", b"\x0a\x06linear", metadata) == b"\x08\x01"
    else:
        found, said = await refused(rig, f"{PATH}ModelReady", b"\x0a\x06linear", metadata)
        assert (found.name, "its own machine" in said) == (code, True)


async def test_only_grpc_may_use_its_paths(rig: Served) -> None:
    async with aiohttp.ClientSession(rig.gateway.url) as session:
        for path in ("ModelInfer", "ModelInfer/linear", "ServerLive", "ServerLive/~"):
            async with session.post(PATH + path, data=b"\0\0\0\0\x08\x0a\x06linear") as answer:
                assert (answer.status, list(await answer.json())) == (404, ["error"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_http2_carries_json_too(rig: Served) -> None:
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}"),
        f"{rig.gateway.url}/v2/models/linear/ready",
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert out.decode() == '{"name":"linear","ready":true} 2 200'


@pytest.mark.parametrize(
    "sent",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x01\x01\x05\0\0\0\x01\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_malformed_http2_is_ended_and_harms_nobody(
    rig: Served, client: aio.InferenceServerClient, sent: bytes
) -> None:
    pid = rig.gateway.pid
    host, _, port = rig.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(sent)
        reading = asyncio.to_thread(lambda: list(iter(lambda: raw.recv(65536), b"")))
        await reading
    assert await client.is_model_ready("linear")
    assert rig.gateway.pid == pid


async def test_switches_under_grpc_and_http_load_lose_nothing(run_folder: Path, front: Front, rig: Served) -> None:
    other_folder = run_folder / "other"
    other_folder.mkdir()
    body = front_testing.body([[1, 0, 0, 0]])
    failures: list[str] = []
    ends = asyncio.Event()

    async def ask_json(session: aiohttp.ClientSession) -> int:
        count = 0
        while not ends.is_set():
            async with session.post("/v2/models/linear/infer", data=body) as answer:
                if answer.status != 200:
                    failures.append(await answer.text())
                count += 1
        return count

    with Front(other_folder, {"linear": front_testing.linear(other_folder / "linear.onnx")}, version="4") as other:
        async with aiohttp.ClientSession(rig.gateway.url) as session, CallLoad(rig.address) as load:
            asking = [asyncio.create_task(ask_json(session)) for _ in range(4)]
            for count in range(1, 13):
                await rig.serve("linear", *(("unit", front), ("other", other))[count % 2])
                await answered_more(load, 20)
            # As a rollout ends: the old replica drains while others go on.
            await rig.serve("linear", "unit", front)
            stopped = await asyncio.to_thread(other.stop)
            ends.set()
            asked = await asyncio.gather(*asking)
    assert (stopped, load.failures, failures) == (0, [], [])
    assert min(load.answered["3"], load.answered["4"], *asked) > 20


async def test_a_replica_killed_out_of_two_loses_no_call(rig: Served, run_folder: Path) -> None:
    folders = [run_folder / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    models = {"linear": front_testing.linear(run_folder / "linear.onnx")}
    with Front(folders[0], models, version="1") as one, Front(folders[1], models, version="2") as two:
        await rig.serve("linear", "pair", one, two)
        async with CallLoad(rig.address, callers=16) as load:
            await becomes_true(lambda: min(load.answered["1"], load.answered["2"]) >= 30)
            one.process.send_signal(signal.SIGKILL)
            seen = load.answered["2"]
            await becomes_true(lambda: load.answered["2"] > seen + 200)
    assert load.failures == []
