"""A scripted API server over raw sockets: it lists and watches ConfigMaps, and misbehaves on demand."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from modelyard.base.clock import SystemClock
from modelyard.control.kube.auth import ClientConfig

Object = dict[str, Any]
_NAMESPACE = "default"


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def watches(self) -> bool:
        return self.query.get("watch") == "true"


class Peer:
    """One connection, with everything that can be done to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self, code: int, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        lines = [f"HTTP/1.1 {code} Scripted", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await self.writer.drain()

    async def begin(self) -> None:
        """The head of a stream."""
        self.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self.writer.drain()

    async def send(self, text: bytes) -> None:
        self.writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        await self.writer.drain()

    async def event(self, kind: str, body: Object) -> None:
        await self.send(json.dumps({"type": kind, "object": body}).encode() + b"\n")

    async def end(self) -> None:
        """The orderly end of a stream."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def reset(self) -> None:
        """TCP RST."""
        raw = self.writer.get_extra_info("socket")
        if raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    @property
    def open(self) -> bool:
        return not self.writer.is_closing() and not self.reader.at_eof()


Fault = Callable[[Request, Peer], Awaitable[None]]
"""Answers one request in its own way."""


@dataclass
class ScriptedServer:
    """faults: for the next requests, in order (None: none); always: for all others. token: what clients must bear."""

    token: str = ""
    page: int = 500
    faults: list[Fault | None] = field(default_factory=list)
    always: Callable[[Request], Fault | None] = lambda _request: None
    requests: list[Request] = field(default_factory=list)
    objects: dict[str, Object] = field(default_factory=dict)
    version: int = 100
    compacted: int = 0
    watching: list[Peer] = field(default_factory=list)
    port: int = 0
    _log: list[tuple[int, str, Object]] = field(default_factory=list)
    _snapshots: dict[str, list[Object]] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    peers: dict[asyncio.Task[None], Peer] = field(default_factory=dict)
    _server: asyncio.Server | None = None

    @property
    def config(self) -> ClientConfig:
        return ClientConfig(server=f"http://127.0.0.1:{self.port}", token=self.token or None)

    @property
    def selection(self) -> dict[str, str]:
        """What a reflector follows of it."""
        return {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server is not None:
            self._server.close()
        for task, peer in list(self.peers.items()):
            peer.reset()
            task.cancel()
        if self.peers:
            await asyncio.wait(list(self.peers))
        self._server = None

    async def put(self, name: str, value: str) -> None:
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.version += 1
        metadata = {"name": name, "namespace": _NAMESPACE, "resourceVersion": str(self.version)}
        self.objects[name] = {"metadata": metadata, "data": {"value": value}}
        await self._note(kind, self.objects[name])

    async def delete(self, name: str) -> None:
        self.version += 1
        gone = self.objects.pop(name)
        await self._note("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}})

    async def churn(self) -> None:
        """Changes, deletions and additions."""
        names = sorted(self.objects)
        for name in names[:5]:
            await self.delete(name)
        for name in names[5:10]:
            await self.put(name, f"at {self.version}")
        for index in range(5):
            await self.put(f"new-{self.version}-{index}", "new")

    def compact(self) -> None:
        """Older versions cannot be watched from now on."""
        self.compacted = self.version
        self._snapshots.clear()

    async def watched(self) -> Peer:
        """Waits for a watch that goes on."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: any(peer.open for peer in self.watching))
        return self.watching[-1]

    def values(self) -> dict[str, str]:
        return {name: body["data"]["value"] for name, body in self.objects.items()}

    async def _note(self, kind: str, body: Object) -> None:
        self._log.append((self.version, kind, body))
        async with self._changed:
            self._changed.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = Peer(reader, writer)
        self.peers[task] = peer
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                await self._answer(request, peer)
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            del self.peers[task]
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, request: Request, peer: Peer) -> None:
        fault = self.faults.pop(0) if self.faults else self.always(request)
        if fault is not None:
            await fault(request, peer)
        elif self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            await peer.answer(401, {"reason": "Unauthorized", "message": "Unauthorized"})
        elif request.watches:
            await self._watch(request, peer)
        else:
            await self._list(request, peer)

    async def _list(self, request: Request, peer: Peer) -> None:
        token = request.query.get("continue")
        if token and token not in self._snapshots:
            await peer.answer(410, {"reason": "Expired", "message": "the continue parameter is too old"})
            return
        items = self._snapshots.pop(token) if token else [self.objects[name] for name in sorted(self.objects)]
        size = min(self.page, int(request.query.get("limit", len(items) + 1)))
        metadata = {"resourceVersion": str(self.version)}
        if len(items) > size:
            metadata["continue"] = f"page-{len(self.requests)}"
            self._snapshots[metadata["continue"]] = items[size:]
        await peer.answer(200, {"metadata": metadata, "items": items[:size]})

    async def _watch(self, request: Request, peer: Peer) -> None:
        at = int(request.query["resourceVersion"])
        if at < self.compacted:
            await peer.answer(410, {"reason": "Expired", "message": f"too old resource version: {at}"})
            return
        await peer.begin()
        async with self._changed:
            self.watching.append(peer)
            self._changed.notify_all()
        while not peer.writer.is_closing():
            for version, kind, body in [each for each in self._log if each[0] > at]:
                await peer.event(kind, body)
                at = version
            async with self._changed:
                await self._changed.wait_for(lambda: self.version > at)  # noqa: B023


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *rest = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    url = urlsplit(target)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, url.path, dict(parse_qsl(url.query)), headers, body)


def answering(code: int, body: Any = None, **headers: str) -> Fault:
    """Answer with a status."""

    async def fault(_request: Request, peer: Peer) -> None:
        await peer.answer(code, body, **headers)

    return fault


def sending(*lines: bytes) -> Fault:
    """Begin a watch, send lines, and end it in an orderly way."""

    async def fault(_request: Request, peer: Peer) -> None:
        await peer.begin()
        for line in lines:
            await peer.send(line + b"\n")
        await peer.end()

    return fault


async def resetting(_request: Request, peer: Peer) -> None:
    """TCP RST instead of an answer."""
    peer.reset()


async def silence(_request: Request, peer: Peer) -> None:
    """Accept the request, and never answer."""
    await peer.reader.read()


async def half_open(_request: Request, peer: Peer) -> None:
    """Begin a watch, and never send anything."""
    await peer.begin()
    await peer.reader.read()


class HurriedClock(SystemClock):
    """Sleeps are counted, and take next to no time."""

    def __init__(self, most: float = 0.0) -> None:
        self.slept: list[float] = []
        self._most = most

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, self._most))


class Mirror:
    """A handler that must see every change: what it is told as old is what it was told before."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.changes: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, place: tuple[str, str], old: Object | None, new: Object | None) -> None:
        assert self.objects.get(place) == old
        assert old is not None or new is not None
        self.changes.append(place[1])
        if new is None:
            del self.objects[place]
        else:
            self.objects[place] = new
        self._changed.set()

    @property
    def values(self) -> dict[str, str]:
        return {name: body["data"]["value"] for (_, name), body in self.objects.items()}

    async def until(self, wanted: Callable[[], dict[str, str]], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while self.values != wanted():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    """In the background until the block ends; what fails there fails the test."""
    task: asyncio.Task[None] = asyncio.ensure_future(work)
    try:
        yield task
        if task.done():
            task.result()
            raise AssertionError("it must run until it is cancelled")
    finally:
        task.cancel()
        async with asyncio.timeout(5):
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(fact: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a fact that nobody announces."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
