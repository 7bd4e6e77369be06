"""A proxy in front of a real API server that misbehaves on demand, as the scripted server does.

Its ConfigMaps are those of one namespace that bear the label LABEL. Whoever asks it is the owner of the cluster.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from kube_testing import Fault, Peer, Request, ScriptedServer
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import CONFIGMAPS

LABEL = "watched=yes"
_EXPIRED = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
_PASSED = ("content-type", "retry-after")


@dataclass
class FaultyProxy(ScriptedServer):
    """`put` and `delete` go to the real server. Requests that no fault is for get what that server answers."""

    upstream: ClientConfig | None = None
    namespace: str = "default"
    _session: aiohttp.ClientSession | None = None
    _direct: Client | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def selection(self) -> dict[str, str]:
        """The objects of this test."""
        return {"namespace": self.namespace, "label_selector": LABEL}

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._stack.aclose()
        await asyncio.sleep(0.05)  # what was aborted over TLS is closed by the loop

    async def start(self) -> None:
        """Takes connections, again if it was stopped."""
        if self._session is None:
            self._session = await self._stack.enter_async_context(aiohttp.ClientSession())
            self._direct = await self._stack.enter_async_context(Client(self._upstream))
        await super().start()

    async def put(self, name: str, value: str) -> None:
        """Create or change it."""
        labels = dict([LABEL.split("=")])
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}
        if name in self.objects:
            path = CONFIGMAPS.path(self.namespace, name)
            self.objects[name] = await self._client.request("PUT", path, body=body)
        else:
            self.objects[name] = await self._client.create(CONFIGMAPS, body)
        self.version = int(self.objects[name]["metadata"]["resourceVersion"])

    async def delete(self, name: str) -> None:
        """Remove it."""
        del self.objects[name]
        await self._client.delete(CONFIGMAPS, self.namespace, name)
        self.version = int((await self._client.list(CONFIGMAPS, self.namespace))["metadata"]["resourceVersion"])

    def cutting(self, lines: int, *, twice: bool = False) -> Fault:
        """Pass so many events of a watch (twice: each of them two times), and reset in the middle of the next one."""

        async def fault(request: Request, peer: Peer) -> None:
            count = 0
            async for line in self._lines(request, peer):
                if count == lines:
                    await peer.send(line[: len(line) // 2])
                    break
                for _ in range(1 + twice):
                    await peer.send(line)
                count += 1
            peer.reset()

        return fault

    def slow(self, seconds: float) -> Fault:
        """Pass the answer after a while, in pieces."""

        async def fault(request: Request, peer: Peer) -> None:
            await asyncio.sleep(seconds)
            if request.watches:
                await self._watch(request, peer)
            else:
                await self._list(request, peer)

        return fault

    async def _list(self, request: Request, peer: Peer) -> None:
        """Anything but a watch."""
        try:
            async with self._ask(request) as answer:
                body = await answer.read()
                headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
                await peer.answer(answer.status, body, **headers)
        except aiohttp.ClientError:
            await peer.answer(502)

    async def _watch(self, request: Request, peer: Peer) -> None:
        if int(request.query.get("resourceVersion") or 0) < self.compacted:
            await peer.answer(410, {**_EXPIRED, "message": "too old resource version"})
            return
        async for line in self._lines(request, peer):
            await peer.send(line)
        await peer.end()

    async def _lines(self, request: Request, peer: Peer) -> AsyncIterator[bytes]:
        """The events of a watch; nothing when the real server refuses it, which is told."""
        try:
            async with self._ask(request) as answer:
                if answer.status != 200:
                    await peer.answer(answer.status, await answer.read())
                    return
                await peer.begin()
                async with self._changed:
                    self.watching.append(peer)
                    self._changed.notify_all()
                buffer = b""
                async for chunk in answer.content.iter_any():
                    *whole, buffer = (buffer + chunk).split(b"\n")
                    for line in whole:
                        yield line + b"\n"
        except aiohttp.ClientError:
            peer.reset()

    def _ask(self, request: Request) -> "aiohttp.client._RequestContextManager":
        assert self._session is not None
        types = {"Content-Type": request.headers["content-type"]} if "content-type" in request.headers else {}
        return self._session.request(
            request.method,
            self._upstream.server + request.path,
            params=request.query,
            data=request.body or None,
            headers={"Accept": "application/json", **types},
            ssl=self._upstream.tls(),
            server_hostname=self._upstream.server_name or None,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    @property
    def _upstream(self) -> ClientConfig:
        assert self.upstream is not None
        return self.upstream

    @property
    def _client(self) -> Client:
        assert self._direct is not None
        return self._direct
