"""The Kubernetes cluster that tests run on: the node of `tests/cluster/node`, or the one that KUBECONFIG names."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.node import files
from cluster.node.node import NAME, Node
from cluster_reading_testing import Reading
from kubectl_testing import Kubectl, Output
from modelyard.api.schema import crds
from modelyard.control.kube import auth
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import NAMESPACES, OURS

Object = dict[str, Any]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def _node() -> Node:
    """The node that the environment names; for each further worker of pytest-xdist the next one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = files.NAMES.index(os.environ.get(NAME) or files.NAMES[0])
    return Node(files.NAMES[first + worker])


NODE = _node()
HOST = NODE.which.host  # where the cluster's pods reach what tests serve; it exists with the node


class Cluster:
    """A cluster, and the inside of its node where that is ours."""

    def __init__(self, kubeconfig: Path, home: Path, node: Node | None) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl = Kubectl(kubeconfig, home)
        self.config = auth.load(kubeconfig)  # for our own client
        self.reading = Reading(self.config, self.kubectl)
        self._node = node

    @property
    def ours(self) -> bool:
        """Whether the node is ours, so that there is `node`, and pods reach HOST."""
        return self._node is not None

    @property
    def node(self) -> Node:
        """To load images into, run commands in, kill and start components of. Skips the test on other clusters."""
        if self._node is None:
            pytest.skip("needs the node of `make test-cluster`; KUBECONFIG names another cluster")
        return self._node

    def define(self) -> None:
        """Have our kinds defined, as they are in this checkout, and served."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(crds())}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))
        names = [f"crd/{crd['metadata']['name']}" for crd in crds()]
        self.kubectl("wait", *names, "--for=condition=Established", "--timeout=30s")

    def signal(self, pod: Object, which: str) -> None:
        """To the process of a pod's first container, such as SIGSTOP."""
        (status, *_) = pod["status"]["containerStatuses"]
        container = status["containerID"].removeprefix("containerd://")
        self.node.exec("ctr", "-n", "k8s.io", "tasks", "kill", "-s", which, container)

    def create(self, name: str, labels: dict[str, str] | None = None) -> "Namespace":
        """A namespace in which pods can be created at once; by default under the profile *restricted*."""
        metadata = {"name": name, "labels": RESTRICTED if labels is None else labels}
        _beside(_create(self.config, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        return Namespace(self, name)


class Namespace:
    """One namespace of one test."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; it must succeed."""
        return self.cluster.kubectl("-n", self.name, *arguments, stdin=stdin)

    def run(self, *arguments: str, stdin: str | None = None, code: int | None = 0) -> Output:
        """Run kubectl; code: the exit status that is expected, None for any."""
        return self.cluster.kubectl.run("-n", self.name, *arguments, stdin=stdin, code=code)

    def apply(self, *objects: Object) -> str:
        """Client-side apply."""
        return self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def find(self, kind: str, name: str) -> Object:
        """One object."""
        return self.cluster.reading.one(self.name, kind, name)

    def all(self, kind: str, *arguments: str) -> list[Object]:
        """The objects of a kind; arguments: `-l SELECTOR`, `--field-selector=SELECTOR`."""
        return self.cluster.reading.all(self.name, kind, *arguments)

    def told(self) -> str:
        """What helps to understand a failure: objects, events, and the ends of pods' logs."""
        parts = [self.run("get", what, "-o", "wide", code=None).out for what in ("all,modelyard", "events")]
        for pod in self.all("pods"):
            name = pod["metadata"]["name"]
            options = ("--all-containers", "--prefix", "--tail=40")
            said = [self.run("logs", name, *options, *more, code=None).out for more in ((), ("--previous",))]
            parts.append(f"== {name}\n" + "".join(said))
        return "\n".join(parts)

    def delete(self) -> None:
        """Begin to delete it; what only a control plane that is not there would let go is let go."""
        _beside(_delete(self.cluster.config, self.name))


async def _create(config: auth.ClientConfig, body: Object) -> None:
    """kubectl would take a second."""
    async with _client(config) as client:
        await client.create(NAMESPACES, body)
        path = f"/api/v1/namespaces/{body['metadata']['name']}/serviceaccounts/default"
        async with asyncio.timeout(30):
            while not await _found(client, path):  # noqa: ASYNC110  no watch for so little
                await asyncio.sleep(0.02)


async def _delete(config: auth.ClientConfig, name: str) -> None:
    free = {"metadata": {"finalizers": None}}
    async with _client(config) as client:
        with suppress(ApiError):  # it may be gone
            await client.delete(NAMESPACES, None, name)
        for kind in OURS:
            held = await _found(client, kind.path(name))  # nothing where our kinds are not defined
            for each in held.get("items", ()):
                with suppress(ApiError):
                    await client.patch(kind, name, each["metadata"]["name"], free)


async def _found(client: Client, path: str) -> Object:
    try:
        return await client.request("GET", path)
    except ApiError as error:
        if error.status != 404:
            raise
        return {}


@asynccontextmanager
async def _client(config: auth.ClientConfig) -> AsyncIterator[Client]:
    async with Client(config) as client:
        yield client
    await asyncio.sleep(0.02)  # connections over TLS are closed by the loop


def _beside(work: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own, whether there is one in this thread or not."""
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, work).result()


@contextmanager
def namespace(cluster: Cluster, labels: dict[str, str] | None = None) -> Iterator[Namespace]:
    """A fresh namespace until the block ends."""
    found = cluster.create(f"test-{uuid.uuid4().hex[:10]}", labels)
    try:
        yield found
    finally:
        found.delete()


@contextmanager
def connected(home: Path) -> Iterator[Cluster]:
    """The cluster that is there; a worker of pytest-xdist brings up what is missing. Else it ends the whole run."""
    named = os.environ.get("KUBECONFIG")
    if named and Path(named).absolute() != NODE.kubeconfig:
        if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
            pytest.exit("KUBECONFIG names one cluster, and tests that end its parts cannot share it: leave out -n", 1)
        yield Cluster(Path(named).absolute(), home, None)
    elif NODE.running:
        yield Cluster(NODE.kubeconfig, home, NODE)
    elif "PYTEST_XDIST_WORKER" in os.environ:
        with _brought_up():
            yield Cluster(NODE.kubeconfig, home, NODE)
    else:
        pytest.exit("no cluster: run `make test-cluster`, or `tests/cluster/node/node.sh up` before these tests", 1)


@contextmanager
def _brought_up() -> Iterator[None]:
    """The node, by a process of its own that takes it down when this one is gone."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, NAME: NODE.which.name, "PYTHONPATH": f"{root}:{root / 'src'}:{root / 'tests'}"}
    command = [sys.executable, "-m", "cluster.node", "run", "bash", "-c", "echo up; cat"]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "up\n":
                pytest.exit(f"the node {NODE.which.name} of this worker did not come up", 1)
            yield
        finally:
            process.stdin.close()
            process.wait()
