"""The API server in this process, over a real socket, and a client that checks the form of every answer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from modelyard.api.schema import crds
from modelyard.base.clock import SystemClock
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store

Object = dict[str, Any]
OURS = "/apis/modelyard.dev/v1alpha1/namespaces/default"
CONFIGS = "/api/v1/namespaces/default/configmaps"
TOKEN = "a-token"


class Web:
    """A client of one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession, store: Store) -> None:
        self.url, self.session, self.store = url, session, store

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Object]:
        headers = {"Authorization": f"Bearer {TOKEN}", **more.pop("headers", {})}
        async with self.session.request(method, self.url + path, headers=headers, **more) as answer:
            found = await answer.json()
            assert isinstance(found, dict)
            if answer.status >= 400:
                assert (found["kind"], found["status"], found["code"]) == ("Status", "Failure", answer.status)
                assert "Traceback" not in found["message"]
            return answer.status, found

    async def config(self, name: str, labels: dict[str, str] | None = None) -> Object:
        code, found = await self.ask("POST", CONFIGS, json={"metadata": {"name": name, "labels": labels or {}}})
        assert code == 201
        return found

    async def lines(self, path: str, **query: str) -> AsyncIterator[Object]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.get(self.url + path, params={"watch": "1", **query}, headers=headers) as answer:
            assert answer.status == 200
            async for line in answer.content:
                yield json.loads(line)


@asynccontextmanager
async def serving() -> AsyncIterator[Web]:
    clock = SystemClock()
    async with Store.memory(clock) as store:
        server = ApiServer(store, crds(), token=TOKEN, tls=None, clock=clock)
        async with server.listening("127.0.0.1", 0) as url, aiohttp.ClientSession() as session:
            yield Web(url, session, store)


def service(name: str, **spec: Any) -> Object:
    spec = {"model": {"uri": "models/iris.onnx"}, **spec}
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelService", "metadata": {"name": name}, "spec": spec}
