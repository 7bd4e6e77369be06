"""A project with a running API server and no controllers, for tests of the command line and the SDK."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from modelyard.api.schema import crds
from modelyard.base.clock import SystemClock
from modelyard.base.errors import RetryLater
from modelyard.cli import main
from modelyard.control.apiserver import folder as apifolder
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import Resource
from modelyard.sdk import objects

T = TypeVar("T")
Object = dict[str, Any]
DIGEST_A = "sha256:" + "a" * 64
DIGEST_B = "sha256:" + "b" * 64
STAMP = "2026-01-02T03:04:05Z"


def model(name: str = "forest", uri: str = "models/forest.onnx", **spec: Any) -> Object:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {"uri": uri, **spec},
    }


def service(name: str = "digits", **spec: Any) -> Object:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": name},
        "spec": spec or {"model": {"name": "forest"}},
    }


def condition(status: str, reason: str, message: str = "", *, kind: str = "Ready", generation: int = 1) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": STAMP,
    }


@dataclass(frozen=True)
class Answer:
    """What a command printed and its exit status."""

    status: int
    out: str
    err: str


class Project:
    """A folder with a server. Commands run in the test's process, the server in a thread of its own."""

    def __init__(self, root: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capture = capture
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, *arguments: str) -> Answer:
        """One command, as typed in the project folder."""
        self._capture.readouterr()
        status = main(arguments)
        found = self._capture.readouterr()
        return Answer(status, found.out, found.err)

    def write(self, path: str, *bodies: Object) -> Path:
        """A manifest in JSON, which is YAML."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("\n---\n".join(json.dumps(body, indent=1) for body in bodies))
        return place

    def get(self, resource: Resource, name: str) -> Object:
        return self.call(lambda client: client.get(resource, "default", name))

    def set_status(self, resource: Resource, name: str, **status: Any) -> Object:
        """What a controller would write."""

        async def write(client: Client) -> Object:
            body = await client.get(resource, "default", name)
            return await client.replace_status(resource, {**body, "status": {**body.get("status", {}), **status}})

        return self.call(write)

    def call(self, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        assert self._client is not None
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(self._client), self._loop).result(20)

    @contextmanager
    def serving(self) -> Iterator[None]:
        started = threading.Event()
        stop: list[Callable[[], None]] = []
        failed: list[BaseException] = []

        async def serve() -> None:
            over = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            stop.append(lambda: asyncio.run_coroutine_threadsafe(_set(over), self._loop))  # type: ignore[arg-type]
            async with AsyncExitStack() as stack:
                self._client = await _start(stack, self.root)
                started.set()
                await over.wait()

        def work() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                failed.append(error)
                started.set()

        thread = threading.Thread(target=work)
        thread.start()
        started.wait(20)
        try:
            if failed:
                raise failed[0]
            yield
        finally:
            if not failed:
                stop[0]()
            thread.join(20)


async def _set(event: asyncio.Event) -> None:
    event.set()


async def _start(stack: AsyncExitStack, root: Path) -> Client:
    data = root / ".modelyard"
    clock = SystemClock()
    home = stack.enter_context(apifolder.opened(data))
    store = await stack.enter_async_context(Store.open(home.database, clock))
    server = ApiServer(store, crds(), token=home.token, tls=home.tls("127.0.0.1", clock), clock=clock)
    url = await stack.enter_async_context(server.listening("127.0.0.1", 0))
    kubeconfig = home.write_kubeconfig(url)
    announced = {"root": str(root), "gateway": "http://127.0.0.1:9", "pid": os.getpid()}
    (data / "server.json").write_text(json.dumps(announced))
    return await stack.enter_async_context(Client(auth.load(kubeconfig)))


def follow_up(
    project: Project, resource: Resource, name: str, *changes: Callable[[Object], Object | None]
) -> threading.Thread:
    """A controller's part in a thread: each change of the status in turn, once the object is there. None: not yet."""

    async def work(client: Client) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        while (body := await objects.get(client, resource, "default", name)) is None:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        for change in changes:
            while True:
                body = await client.get(resource, "default", name)
                if (status := change(body)) is None:
                    assert asyncio.get_running_loop().time() < deadline
                    await asyncio.sleep(0.02)
                    continue
                with suppress(RetryLater):  # the command has changed the object meanwhile, and is answered anew
                    await client.replace_status(resource, {**body, "status": status})
                    break
            await asyncio.sleep(0.05)

    thread = threading.Thread(target=project.call, args=(work,))
    thread.start()
    return thread
