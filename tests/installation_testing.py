"""Modelyard in a cluster, as `modelyard install` puts it there from images of this checkout."""

import os
import subprocess
import sys
from typing import Any

from tools.images import build

from cluster_testing import Cluster
from kubectl_testing import Output

Object = dict[str, Any]
SYSTEM = "modelyard-system"
IMAGES = ("operator", "gateway", "runtime")
ACCOUNT = f"system:serviceaccount:{SYSTEM}:modelyard-operator"
_ARCHIVE = "modelyard.dev/test-archive"
_loaded: dict[str, str] = {}
PREFIX = "MODELYARD_TEST_IMAGE_PREFIX"
"""Variable that names where the images are, for a cluster of somebody else."""


class Installation:
    """The commands of this checkout, and what they have installed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kubectl = cluster.kubectl
        self.context = cluster.kubectl("config", "current-context").strip()

    @property
    def environment(self) -> dict[str, str]:
        """Of the commands."""
        return {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}

    def run(self, *arguments: str, code: int | None = 0, stdin: str | None = None, seconds: float = 240) -> Output:
        """`modelyard ARGUMENTS --context ...`; code: the exit status that is expected, None for any."""
        command = [sys.executable, "-m", "modelyard", *arguments, "--context", self.context]
        done = subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, check=False, timeout=seconds
        )
        assert code is None or done.returncode == code, (
            f"modelyard {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}\n{self.told()}"
        )
        return Output(done.stdout, done.stderr, done.returncode)

    def install(self, *options: str) -> Output:
        """With the images of this checkout, and no options but these; again: an upgrade."""
        named = os.environ.get(PREFIX)
        if named:
            return self.run("install", "--defaults", "--image-prefix", named, *options)
        archives = self.load_images()
        done = self.run("install", "--defaults", *options)
        self._restart_what_is_older(archives)
        return done

    def printed(self, *options: str) -> str:
        """The manifests, with the images that are installed."""
        named = os.environ.get(PREFIX)
        prefix = ("--image-prefix", named) if named and "--image-prefix" not in options else ()
        command = [sys.executable, "-m", "modelyard", "install", "--print", *prefix, *options]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def load_images(self) -> dict[str, str]:
        """Into the node. -> name -> name of the archive, which tells its content."""
        found = {name: build.archive(name) for name in IMAGES}
        for name, archive in found.items():
            if _loaded.get(name) != archive.name:
                self.cluster.node.load(archive)
                _loaded[name] = archive.name
        return {name: archive.name for name, archive in found.items()}

    def _restart_what_is_older(self, archives: dict[str, str]) -> None:
        """While sources change the version stays, so nothing tells Kubernetes of the other image."""
        for name in ("operator", "gateway"):
            resource = f"deployment/modelyard-{name}"
            before = self.find("deployment", f"modelyard-{name}")["metadata"].get("annotations") or {}
            if before.get(_ARCHIVE) != archives[name]:
                self.kubectl("-n", SYSTEM, "annotate", "--overwrite", resource, f"{_ARCHIVE}={archives[name]}")
                if _ARCHIVE in before:
                    self.kubectl("-n", SYSTEM, "rollout", "restart", resource)
                    self.kubectl("-n", SYSTEM, "rollout", "status", resource, "--timeout=50s")

    def find(self, kind: str, name: str, namespace: str = SYSTEM) -> Object:
        """One object."""
        return self.cluster.reading.one(namespace, kind, name)

    def pods(self, component: str) -> list[Object]:
        """Those of `operator` or `gateway`."""
        selector = f"app.kubernetes.io/name=modelyard,app.kubernetes.io/component={component}"
        return self.cluster.reading.all(SYSTEM, "pods", "-l", selector)

    @property
    def url(self) -> str:
        """Of the gateway's Service, as the machine of the tests reaches it."""
        return f"http://{self.find('service', 'modelyard-gateway')['spec']['clusterIP']}"

    def told(self) -> str:
        """What helps to understand a failure."""
        parts = [self.kubectl.run("-n", SYSTEM, "get", "pods,events", "-o", "wide", code=None).out[-4000:]]
        for name in ("modelyard-operator", "modelyard-gateway"):
            options = ("--all-pods", "--prefix", "--tail=40")
            parts.append(self.kubectl.run("-n", SYSTEM, "logs", f"deployment/{name}", *options, code=None).out)
        return "\n".join(parts)


def warnings(told: str) -> list[str]:
    """Of the API server. That another command has applied the object before is none."""
    return [line for line in told.splitlines() if line.strip() and "last-applied-configuration" not in line]
