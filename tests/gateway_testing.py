"""Upstreams, a caller and a real gateway for tests; as a program, one upstream: `gateway_testing.py SOCKET NAME`."""

import asyncio
import contextlib
import io
import json
import ssl
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp


class Upstream:
    """A replica's stand-in on a Unix socket: says who it is, and how large the body was.

    A path that ends in `slow` is never answered, one that ends in `echo` with the head of the request, in `large` with
    20,000 bytes, in `events` with a stream of events. heads: of the latest requests.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.requests = 0
        self.heads: deque[str] = deque(maxlen=1000)
        self.events_sent = 0
        self.holding = asyncio.Event()
        self._stopped = asyncio.Event()
        self._released: asyncio.Event | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    @property
    def address(self) -> str:
        return f"unix:{self.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), backlog=1024)

    async def stop(self) -> None:
        """As a process that is killed: every connection breaks, the socket file stays."""
        self._server.close()
        self._stopped.set()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:  # noqa: ASYNC110  a few turns of the loop
            await asyncio.sleep(0.001)

    def hold(self) -> None:
        """Answer nobody until `release`; `holding` is set when somebody waits."""
        self._released = asyncio.Event()

    def release(self) -> None:
        if self._released:
            self._released.set()

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
        path = head.split(" ", 2)[1].partition("?")[0]
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
            await self._stopped.wait()
            raise ConnectionError
        if self._released:
            self.holding.set()
            await self._released.wait()
        self.requests += 1
        self.heads.append(head)
        if path.endswith("events"):
            await self._stream(writer)
            return
        answer: dict[str, Any] = {"unit": self.name, "bytes": size}
        if path.endswith("echo"):
            answer["head"] = head
        if path.endswith("large"):
            answer["padding"] = "0.125, " * 3000
        body = json.dumps(answer).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        """Eight events in three and a half seconds."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(8):
            if number:
                await asyncio.sleep(0.5)
            event = f"data: {number}\n\n".encode()
            self.events_sent += 1
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
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


async def becomes_true(fact: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110  whatever the fact is made of
            await asyncio.sleep(0.005)


REST_SECONDS = 0.01


class Load:
    """Callers that send one request after the other while the block runs, and remember what went wrong.

    They rest a little after each answer, since what they watch needs the processors, too. tls: what they trust and
    show. afresh: each request comes by a connection of its own. body: of each request.
    """

    def __init__(
        self,
        url: str,
        callers: int = 8,
        *,
        tls: ssl.SSLContext | None = None,
        afresh: bool = False,
        body: bytes = b'{"inputs": []}',
        headers: dict[str, str] | None = None,
    ) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._url = url
        self._callers = callers
        self._tls = tls
        self._afresh = afresh
        self._body = body
        self._headers = headers
        self._ends = False

    async def __aenter__(self) -> "Load":
        connector = aiohttp.TCPConnector(ssl=self._tls or True, force_close=self._afresh)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends = True
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _call(self) -> None:
        while not self._ends:
            try:
                async with self._session.post(self._url, data=io.BytesIO(self._body)) as answer:
                    text = await answer.text()
                if answer.status == 200:
                    self.answered[json.loads(text)["unit"]] += 1
                else:
                    self.failures.append(f"{answer.status} {text}")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(repr(error))
            await asyncio.sleep(REST_SECONDS)


async def _main(path: str, name: str) -> None:
    await Upstream(Path(path), name).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
