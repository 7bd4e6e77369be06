"""Callers of `bench/gateway.py`, as a program: `asker.py '[grpc, port, token, model, connections, seconds]'`.

Each asks again as soon as it was answered. Prints how many requests were answered, and how many of them not with 200.
"""

import asyncio
import json
import struct
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import grpc
import httptools
import uvloop
from tritonclient.grpc import service_pb2

_BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[0.5,1.5,2.5,3.5]}]}'
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def request(model: str, token: str) -> bytes:
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(_BODY)}", *([f"Authorization: Bearer {token}"] if token else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + _BODY


class Asker(asyncio.Protocol):
    """One connection that asks again as soon as it was answered."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._parser = httptools.HttpResponseParser(self)
        self.count = 0
        self.failures = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.count += 1
        self.failures += self._parser.get_status_code() != 200
        if time.perf_counter() < self._until:
            self._transport.write(self._request)
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.failures += 1
            self.done.set_result(None)


async def ask(port: int, request: bytes, connections: int, seconds: float) -> None:
    """Prints how many requests were answered, and how many of them not with 200."""
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    make = partial(Asker, request, until)
    made = [(await loop.create_connection(make, "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.gather(*(each.done for each in made))
    say(json.dumps([sum(each.count for each in made), sum(each.failures for each in made)]))


async def call(port: int, token: str, model: str, connections: int, seconds: float) -> None:
    """The same by gRPC, on one channel for eight calls at a time."""
    until, counts = time.perf_counter() + seconds, [0, 0]
    row = struct.pack("<4f", 0.5, 1.5, 2.5, 3.5)
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[row])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    data = message.SerializeToString()
    metadata = [("authorization", f"Bearer {token}")] if token else []

    async def go_on(channel: grpc.aio.Channel) -> None:
        method = channel.unary_unary(_METHOD, None, None)
        while time.perf_counter() < until:
            try:
                await method(data, metadata=metadata)
            except grpc.aio.AioRpcError:
                counts[1] += 1
            counts[0] += 1

    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        made = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(max(1, connections // 8))]
        channels = [await stack.enter_async_context(each) for each in made]
        await asyncio.gather(*(go_on(channels[number % len(channels)]) for number in range(connections)))
    say(json.dumps(counts))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def main() -> None:
    by_grpc, port, token, model, connections, seconds = json.loads(sys.argv[1])
    if by_grpc:
        asyncio.run(call(port, token, model, connections, seconds))
    else:
        uvloop.run(ask(port, request(model, token), connections, seconds))


if __name__ == "__main__":
    main()
