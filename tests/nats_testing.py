"""A real NATS server for tests, on a port and a folder that stay the same over restarts."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import nats
from nats.aio.client import Client

from modelyard.base import launch
from modelyard.runtime.streams.records import Group, Message, Outgoing
from modelyard.wire.work import ModelWork, SinkWork, SourceWork, StartWork, StreamWork

SERVER = Path(sys.executable).parent / "nats-server"


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as found:
        found.bind((address, 0))
        port: int = found.getsockname()[1]
        return port


class Nats:
    """`nats-server` with JetStream, every write synced. It dies with the test.

    options: further lines of its configuration, such as `max_payload: 65536`. jetstream: lines inside `jetstream {}`;
    None: without JetStream. address: where it listens.
    """

    def __init__(
        self, folder: Path, options: str = "", jetstream: str | None = "", *, address: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self.address = address
        self.port = free_port(address)
        self.options = options
        self.jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"nats://{self.address}:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "nats.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def start(self) -> None:
        """Until it greets a connection; JetStream is there then."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"listen: {self.address}:{self.port}", "server_name: test", self.options]
        if self.jetstream is not None:
            lines.append(
                f'jetstream {{\n store_dir: "{self.folder / "store"}"\n sync_interval: always\n {self.jetstream}\n}}'
            )
        config = self.folder / "nats.conf"
        config.write_text("\n".join(lines))
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                launch.command([str(SERVER), "-c", str(config)]), stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 20
        while not self._greets():
            assert self._process.poll() is None, self.log[-3000:]
            assert time.monotonic() < deadline, self.log[-3000:]
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()

    def restart(self) -> None:
        """kill -9, and again with the same port and store."""
        self.kill()
        self.start()

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), timeout=2) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator["Bare"]:
        """A plain client, for what a test does from outside."""
        client = await nats.connect(self.uri, allow_reconnect=False, **options)
        try:
            yield Bare(client)
        finally:
            await client.close()


class Bare:
    """nats-py, with the few things that tests do again and again."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def api(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        answer = await self.client.request(f"$JS.API.{what}", json.dumps(body).encode() if body else b"", timeout=10)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def stream(self, name: str, subjects: Sequence[str], **config: Any) -> dict[str, Any]:
        body = {"name": name, "subjects": list(subjects), "storage": "file", **config}
        answer = await self.api(f"STREAM.CREATE.{name}", body)
        assert "error" not in answer, answer
        return answer

    async def info(self, stream: str, subjects: str = ">") -> dict[str, Any]:
        return await self.api(f"STREAM.INFO.{stream}", {"subjects_filter": subjects})

    async def subjects(self, stream: str, subjects: str = ">") -> dict[str, int]:
        """Subject -> messages."""
        found: dict[str, int] = (await self.info(stream, subjects))["state"].get("subjects") or {}
        return found

    async def publish(
        self, subject: str, payload: bytes | str = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The acknowledgement."""
        data = payload.encode() if isinstance(payload, str) else payload
        answer = await self.client.request(subject, data, timeout=10, headers=dict(headers) if headers else None)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def fill(self, subject: str, payloads: Sequence[bytes | str], window: int = 2000) -> None:
        """Publish all, in order; only the last of each window is waited for."""
        for number, each in enumerate(payloads, 1):
            if number % window and number < len(payloads):
                await self.client.publish(subject, each.encode() if isinstance(each, str) else each)
            else:
                await self.publish(subject, each)

    async def read(self, stream: str, subject: str) -> list[tuple[int, bytes, dict[str, str]]]:
        """(sequence, payload, headers) of everything that a stream holds on a subject."""
        count = sum((await self.subjects(stream, subject)).values())
        js = self.client.jetstream()
        found = []
        subscription = await js.subscribe(subject, stream=stream, ordered_consumer=True)
        for _ in range(count):
            message = await subscription.next_msg(timeout=10)
            found.append((message.metadata.sequence.stream, message.data, dict(message.headers or {})))
        await subscription.unsubscribe()
        return found


async def until(what: Any, seconds: float = 20.0) -> Any:
    """What `await what()` returns, as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = await what()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.02)


class Wire:
    """A proxy in front of the server that can cut connections, stop answers, or let nobody in.

    It works in the event loop of the test. answers, forwards: what is said from now on arrives. accepts: connections.
    flows: it takes something at all.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.answers = True
        self.forwards = True
        self.accepts = True
        self.flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._served = 0
        self._idle = asyncio.Event()

    @property
    def uri(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.flows.set()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.flows.set()
        while self._served:
            self._idle.clear()
            self.cut()
            await self._idle.wait()

    def cut(self) -> None:
        """All connections, at once."""
        for each in tuple(self._writers):
            each.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served += 1
        self._writers.add(writer)
        try:
            if self.accepts:
                await self._connect(reader, writer)
        finally:
            self._writers.discard(writer)
            await _gone(writer)
            self._served -= 1
            self._idle.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return
        self._writers.add(server_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server_writer, lambda: self.forwards))
                group.create_task(self._pump(server_reader, writer, lambda: self.answers))
        finally:
            self._writers.discard(server_writer)
            await _gone(server_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[], bool]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await self.flows.wait()
                if passes():
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


async def _gone(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def stream_work(uri: str, name: str, **changes: Any) -> StreamWork:
    """From `<name>.in` of stream `<name>_in` to `<name>.out` of stream `<name>_out`, exactly once, from the first."""
    base = StreamWork(
        name=f"default.{name}",
        revision=f"{name}-1",
        model=ModelWork(name="m", digest="sha256:" + "0" * 64, format="onnx"),
        source=SourceWork(uri=uri, stream=f"{name}_in", subjects=(f"{name}.in",)),
        sink=SinkWork(uri=uri, stream=f"{name}_out", subject=f"{name}.out"),
        dead_letter=f"{name}.dead",
        delivery="exactlyOnce",
        start=StartWork(at="earliest"),
    )
    return msgspec.structs.replace(base, **changes)


def partitioned(work: StreamWork, partitions: int, subject: str = "") -> StreamWork:
    """The same with partitions, whose number is the third token: `<name>.in.*.>`."""
    filters = (subject or f"{work.source.subjects[0]}.*.>",)
    source = msgspec.structs.replace(work.source, subjects=filters)
    return msgspec.structs.replace(work, partitions=partitions, key_token=3, source=source)


def scored(messages: Sequence[Message], dead: Sequence[int] = ()) -> Group:
    """What a model could make of them: their payload once more. dead: positions that become dead letters."""
    return Group(
        messages=tuple(messages),
        outgoing=tuple(
            Outgoing(position=each.position, payload=b"scored " + each.payload, dead=each.position in dead)
            for each in messages
        ),
        records=len(messages),
        dead_letters=sum(each.position in dead for each in messages),
    )
