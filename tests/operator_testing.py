"""An API server for the operator's parts: the embedded one, with pods that nobody runs."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import operator_process
from modelyard.api.schema import crds
from modelyard.base.clock import SystemClock
from modelyard.control.apiserver import folder as apifolder
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import LEASES, PODS

Object = dict[str, Any]
SYSTEM = "modelyard-system"
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_POD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "pods"},
    "spec": {
        "group": "",
        "names": {"kind": "Pod", "plural": "pods"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "storage": True,
                "served": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _OPEN, "status": _OPEN}}},
            }
        ],
    },
}


@dataclass(frozen=True)
class Api:
    """A server that runs. kubeconfig: of its owner."""

    kubeconfig: Path
    client: Client

    async def pod(self, name: str, component: str = "operator", **parts: Any) -> None:
        labels = {"app.kubernetes.io/name": "modelyard", "app.kubernetes.io/component": component}
        body = {"metadata": {"name": name, "namespace": SYSTEM, "labels": labels}, **parts}
        await self.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", **body})

    async def leaders(self) -> list[str]:
        """Names of pods with the label."""
        found = await self.client.list(PODS, SYSTEM, labelSelector="modelyard.dev/leader=true")
        return [each["metadata"]["name"] for each in found["items"]]

    async def holder(self) -> str:
        """Who holds the Lease, without what makes a process differ from others of its pod."""
        spec = (await self.client.get(LEASES, SYSTEM, "modelyard-operator"))["spec"]
        return str(spec["holderIdentity"]).partition("_")[0]


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Api]:
    clock = SystemClock()
    with apifolder.opened(folder / "server") as home:
        async with Store.open(home.database, clock) as store:
            tls = home.tls("127.0.0.1", clock)
            server = ApiServer(store, (*crds(), _POD), token=home.token, tls=tls, clock=clock, key=home.key())
            async with server.listening("127.0.0.1", 0) as url:
                kubeconfig = home.write_kubeconfig(url)
                async with Client(auth.load(kubeconfig)) as client:
                    yield Api(kubeconfig, client)


@dataclass
class Operator:
    """A process with memory twins, and what it said."""

    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def says(self, part: str, seconds: float = 40.0) -> float:
        """Wait for a line with it; -> when."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while line := await self.process.stdout.readline():
                self.said.append(line.decode().rstrip())
                if part in self.said[-1]:
                    return time.monotonic()
        raise AssertionError(f"it ended with {await self.process.wait()} and said\n" + "\n".join(self.said))

    async def rest(self) -> str:
        """What else it says until it ends."""
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.read()).decode()

    def signal(self, which: signal.Signals) -> float:
        self.process.send_signal(which)
        return time.monotonic()


@asynccontextmanager
async def operators(api: Api, folder: Path) -> AsyncIterator["Start"]:
    """Starts processes that end with the test."""
    async with AsyncExitStack() as stack:
        yield Start(api, folder, stack)


@dataclass(frozen=True)
class Start:
    """Starts one; pod: the name of its pod."""

    api: Api
    folder: Path
    stack: AsyncExitStack

    async def __call__(self, pod: str) -> Operator:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            operator_process.__file__,
            *("--kubeconfig", str(self.api.kubeconfig)),
            *("--http", "127.0.0.1:0"),
            *("--data", str(self.folder / pod)),
            env={**os.environ, "POD_NAME": pod},
            stdout=asyncio.subprocess.PIPE,
        )
        self.stack.push_async_callback(process.wait)
        self.stack.callback(_kill, process)
        return Operator(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
