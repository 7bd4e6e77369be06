"""The Kubernetes cluster that tests run on: the node of `tests/cluster/node`, or the one that KUBECONFIG names."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.node import files
from cluster.node.node import Node
from kubectl_testing import Kubectl, Output, until
from modelyard.api.schema import crds
from modelyard.control.kube import auth

Object = dict[str, Any]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
HOST = files.HOST  # where the cluster's pods reach what tests serve; this and the pods' addresses exist with the node


class Cluster:
    """A cluster, and the inside of its node where that is ours."""

    def __init__(self, kubeconfig: Path, home: Path, node: Node | None) -> None:
        self.kubeconfig = kubeconfig
        self.kubectl = Kubectl(kubeconfig, home)
        self._node = node

    @property
    def ours(self) -> bool:
        """Whether the node is ours, so that there is `node`, and pods reach HOST."""
        return self._node is not None

    @property
    def config(self) -> auth.ClientConfig:
        """For our own client."""
        return auth.load(self.kubeconfig)

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

    def create(self, name: str, labels: dict[str, str] | None = None) -> "Namespace":
        """A namespace in which pods can be created at once; by default under the profile *restricted*."""
        metadata = {"name": name, "labels": RESTRICTED if labels is None else labels}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        self.kubectl("create", "-f", "-", stdin=json.dumps(body))
        ready = ("-n", name, "get", "serviceaccount", "default")
        until(lambda: self.kubectl.run(*ready, code=None).code == 0, 30)
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
        found: Object = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def all(self, kind: str, *arguments: str) -> list[Object]:
        """The objects of a kind."""
        found: list[Object] = json.loads(self("get", kind, *arguments, "-o", "json"))["items"]
        return found

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
        self.cluster.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")
        held = self.run("get", "modelyard", "-o", "name", code=None).out.split()
        for each in held:
            free = '{"metadata": {"finalizers": null}}'
            self.run("patch", each, "--type=merge", "-p", free, code=None)  # it may be gone by now


@contextmanager
def namespace(cluster: Cluster, labels: dict[str, str] | None = None) -> Iterator[Namespace]:
    """A fresh namespace until the block ends."""
    found = cluster.create(f"test-{uuid.uuid4().hex[:10]}", labels)
    try:
        yield found
    finally:
        found.delete()


def connected(home: Path) -> Cluster:
    """The cluster that is there. Ends the whole run where there is none."""
    node = Node()
    named = os.environ.get("KUBECONFIG")
    if named and Path(named).absolute() != node.kubeconfig:
        return Cluster(Path(named).absolute(), home, None)
    if not node.running:
        pytest.exit("no cluster: run `make test-cluster`, or `tests/cluster/node/node.sh up` before these tests", 1)
    return Cluster(node.kubeconfig, home, node)
