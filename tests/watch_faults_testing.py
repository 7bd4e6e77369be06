"""The faults that every watch meets some day, for servers that have them on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from kube_testing import HurriedClock, Mirror, ScriptedServer, answering, resetting, running, sending, until
from modelyard.base.clock import Clock
from modelyard.control.kube.client import Client
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import CONFIGMAPS

Break = Callable[[ScriptedServer], Awaitable[None]]
GONE = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}


@dataclass
class Followed:
    """A server, what follows it, and what a handler saw."""

    server: ScriptedServer
    client: Client
    reflector: Reflector
    mirror: Mirror
    task: asyncio.Task[None]

    async def catches_up(self) -> None:
        await self.mirror.until(self.server.values)
        cached = {name: body["data"]["value"] for (_, name), body in self.reflector.cache.items()}
        assert cached == self.server.values()


def reflector_of(client: Client, clock: Clock, **options: Any) -> tuple[Reflector, Mirror]:
    """A reflector of ConfigMaps, and a handler of it."""
    reflector, mirror = Reflector(client, CONFIGMAPS, clock=clock, **options), Mirror()
    reflector.add_handler(mirror)
    return reflector, mirror


@asynccontextmanager
async def following(server: ScriptedServer, **options: Any) -> AsyncIterator[Followed]:
    """With 20 objects, listed and watched."""
    async with server, Client(server.config, attempts=2, pause=0.01, timeout=2) as client:
        for index in range(20):
            await server.put(f"object-{index:02}", "first")
        reflector, mirror = reflector_of(client, HurriedClock(0.05), **server.selection, **options)
        async with running(reflector.run()) as task:
            await server.watched()
            yield Followed(server, client, reflector, mirror, task)


async def server_closes(server: ScriptedServer) -> None:
    await server.watching[-1].end()
    server.watching[-1].writer.close()
    await server.churn()


async def connection_is_reset(server: ScriptedServer) -> None:
    server.watching[-1].reset()
    await server.churn()


async def expires_in_the_stream(server: ScriptedServer) -> None:
    await server.watching[-1].event("ERROR", GONE)
    server.watching[-1].reset()
    await server.churn()
    server.compact()


async def expires_as_a_status(server: ScriptedServer) -> None:
    server.watching[-1].reset()
    await server.churn()
    server.compact()


async def error_events(server: ScriptedServer) -> None:
    for code in (500, None, "many", 504):
        body = {"kind": "Status", "code": code, "reason": "InternalError", "message": "etcd"}
        server.faults.append(sending(json.dumps({"type": "ERROR", "object": body}).encode()))
    await connection_is_reset(server)


async def too_many_requests(server: ScriptedServer) -> None:
    server.faults += [answering(429, {"reason": "TooManyRequests"}, Retry_After="4")] * 2
    await connection_is_reset(server)


async def unavailable(server: ScriptedServer) -> None:
    server.faults += [answering(503)] * 4
    await expires_as_a_status(server)


async def refuses_connections(server: ScriptedServer) -> None:
    await server.stop()
    await server.churn()
    await asyncio.sleep(0.2)
    await server.start()


async def aborts_connections(server: ScriptedServer) -> None:
    server.faults += [resetting] * 4
    await expires_as_a_status(server)


async def sends_garbage(server: ScriptedServer) -> None:
    server.faults += [
        sending(b'{"type": "ADDED"'),
        sending(b"\xff\xfe"),
        sending(b'{"type": "ADDED", "object": {}}'),
        answering(200, b"<html>"),
        answering(200, {"items": 5}),
        answering(200, {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "x"}}]}),
        sending(b"[" * 100_000),
        answering(200, {"metadata": {}, "items": []}),
    ]
    await connection_is_reset(server)


FAULTS = [
    server_closes,
    connection_is_reset,
    expires_in_the_stream,
    expires_as_a_status,
    error_events,
    too_many_requests,
    unavailable,
    refuses_connections,
    aborts_connections,
    sends_garbage,
]


async def check(server: ScriptedServer, fault: Break) -> None:
    """What is followed is right after a fault, twice, and nobody is asked without measure."""
    async with following(server) as it:
        for _ in range(2):
            await fault(it.server)
            await it.catches_up()
            await it.server.watched()
        assert len(it.server.requests) < 40
        await it.server.put("last", "one")
        await it.catches_up()


async def check_bookmark(it: Followed) -> None:
    """A bookmark spares the list after a compaction. it: a server that has gone on to a version without our objects."""
    await it.server.watching[-1].event("BOOKMARK", {"metadata": {"resourceVersion": str(it.server.version)}})
    before = it.reflector.last_event_at
    await until(lambda: it.reflector._version == str(it.server.version))
    assert it.reflector.last_event_at >= before
    it.server.compact()
    await connection_is_reset(it.server)
    await it.catches_up()
    assert it.reflector.relists == 1
