"""`serve` as a function, on a port of this machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import front_testing
from front_testing import body, get, post
from modelyard.base.errors import UserError
from modelyard.runtime.backends.onnx import OnnxBackend
from modelyard.runtime.front.server import Listen, serve
from modelyard.wire.work import ModelWork, ServeWork

WORK = ServeWork(models=(ModelWork(name="linear", digest="", format="onnx"),), drain_seconds=2)


@asynccontextmanager
async def serving(folder: Path, listen: Listen) -> AsyncIterator[str]:
    """The address; afterwards the server has stopped as asked."""
    backend = await OnnxBackend.open(front_testing.linear(folder / "linear.onnx"), 1)
    stop = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(WORK, {"linear": backend}, listen, stop=stop, ready=address.set_result))
    try:
        both: list[asyncio.Future[Any]] = [task, address]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield await address
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        await backend.close()


async def ask(address: str, request: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_free_port_is_found_and_requests_are_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, Listen()) as address:
        assert address.startswith("127.0.0.1:")
        found = await ask(address, post("/v2/models/linear/infer", body([0, 1, 0, 0]), "Connection: close\r\n"))
        assert found.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"data":[1.0,2.0,3.0]' in found
    with pytest.raises(ConnectionRefusedError):
        await ask(address, b"")


async def test_a_browsers_foreign_page_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, Listen()) as address:
        found = await ask(address, get("/v2", "Origin: https://evil.example\r\nConnection: close\r\n"))
        assert found.startswith(b"HTTP/1.1 403 Forbidden\r\n")


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, Listen()) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(UserError, match=f"port {port} is in use; stop what uses it or choose another port"):
            async with serving(tmp_path, Listen(port=port)):
                pass


async def test_other_machines_are_never_served(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0\.0\.0\.0 is not this machine alone"):
        async with serving(tmp_path, Listen(host="0.0.0.0")):
            pass
