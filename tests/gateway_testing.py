"""Upstreams, a caller and a real gateway for tests; as a program, one upstream: `gateway_testing.py SOCKET NAME`."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any


class Upstream:
    """A replica's stand-in on a Unix socket: says who it is, and how large the body was.

    A path that ends in `slow` is answered after 30 s, one that ends in `echo` with the head of the request.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.requests = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        """As a process that is killed: every connection breaks, the socket file stays."""
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        path = head.split(" ", 2)[1]
        size = 0
        if "transfer-encoding: chunked" in head:
            while length := int((await reader.readline()).strip() or b"0", 16):
                size += len(await reader.readexactly(length))
                await reader.readline()
            await reader.readline()
        elif "content-length: " in head:
            size = int(head.split("content-length: ")[1].split("\r\n")[0])
            await reader.readexactly(size)
        if path.endswith("slow"):
            await asyncio.sleep(30)
        self.requests += 1
        answer: dict[str, Any] = {"unit": self.name, "bytes": size}
        if path.endswith("echo"):
            answer["head"] = head
        body = json.dumps(answer).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()


@contextlib.asynccontextmanager
async def upstream(path: Path, name: str) -> AsyncIterator[Upstream]:
    """One that runs while the block does."""
    one = Upstream(path, name)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def _main(path: str, name: str) -> None:
    await Upstream(Path(path), name).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
