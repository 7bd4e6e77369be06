"""The front with a tiny ONNX model, against a bare server of the same build that answers "hello", in one run.

    PYTHONPATH=src:tests python bench/front.py [--connections 64] [--seconds 3] [--rounds 5]

Both servers listen on Unix sockets in processes of their own, pinned to one core; the client has another. Rounds
alternate, the median counts. Every connection sends a body of its own, and every answer is compared with the first one
of its connection.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import cast

import httptools
import msgspec
import uvloop

import front_testing
from modelyard.runtime.backends.onnx import OnnxBackend
from modelyard.runtime.front.server import Listen, serve
from modelyard.wire.work import ModelWork, ServeWork


class Hello(asyncio.Protocol):
    """What any HTTP server in Python costs at least: parse, answer a constant."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello")


async def run_hello(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Hello, path)
    await server.serve_forever()


async def run_front(path: str, model: str) -> None:
    backend = await OnnxBackend.open(Path(model), 1)
    work = ServeWork(models=(ModelWork(name="bench", digest="", format="onnx"),))
    await serve(work, {"bench": backend}, Listen(socket=path), stop=asyncio.Event(), ready=lambda _: None)


class Load(asyncio.Protocol):
    """One connection that asks again as soon as it was answered."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self._request = request
        self._until = until
        self._latencies = latencies
        self._expected = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._latencies.append(now - self._asked)
        if not self._expected:
            assert data.startswith(b"HTTP/1.1 200"), data
            self._expected = data
        assert data == self._expected, data
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self.done.set_result(None)


async def measure(path: str, requests: list[bytes], seconds: float) -> tuple[float, float, float]:
    """Requests per second, p50 and p99 in milliseconds."""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_unix_connection(partial(Load, request, began + seconds, latencies), path)
        for request in requests
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    took = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / took, cuts[49] * 1e3, cuts[98] * 1e3


def start(path: str, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, __file__, "--run", *arguments])
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise SystemExit(f"{arguments[0]} did not start")
        time.sleep(0.05)
    return process


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, *rest = arguments.run
        uvloop.run(run_hello(*rest) if name == "hello" else run_front(*rest))
        return
    bodies = [
        msgspec.json.encode(
            {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [i + 0.5, i + 1.5, 2.5, 3.5]}]}
        )
        for i in range(arguments.connections)
    ]
    requests = [front_testing.post("/v2/models/bench/infer", body) for body in bodies]
    with tempfile.TemporaryDirectory() as folder:
        model = front_testing.linear(Path(folder) / "model.onnx")
        paths = {"hello": f"{folder}/hello.sock", "front": f"{folder}/front.sock"}
        found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in paths}
        with contextlib.ExitStack() as started:
            servers = {}
            for name, path in paths.items():
                extra = [str(model)] if name == "front" else []
                servers[name] = started.enter_context(start(path, name, path, *extra))
                started.callback(servers[name].kill)
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            for _ in range(arguments.rounds):
                for name, process in servers.items():
                    before = cpu_seconds(process)
                    rate, p50, p99 = uvloop.run(measure(paths[name], requests, arguments.seconds))
                    cpu = (cpu_seconds(process) - before) / (rate * arguments.seconds)
                    found[name].append((rate, p50, p99, cpu * 1e6))
    medians = {}
    for server, rounds in found.items():
        rate, p50, p99, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
        medians[server] = (rate, cpu)
        say(f"{server:6} {rate:8.0f} req/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  server CPU {cpu:6.1f} us/request")
    say(
        f"front / hello: {medians['front'][0] / medians['hello'][0]:.2f} of the rate, "
        f"{medians['front'][1] / medians['hello'][1]:.2f} times the CPU"
    )


if __name__ == "__main__":
    main()
