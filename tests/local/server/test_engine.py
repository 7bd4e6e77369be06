"""The control loop on the embedded API server, in a process of its own."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_suite import EngineSuite
from kubectl_testing import Kubectl, Server, running
from modelyard.control.kube import auth
from modelyard.control.kube.auth import ClientConfig


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server") / "data") as found:
        yield found


@pytest.fixture
def place(server: Server, tmp_path: Path) -> tuple[ClientConfig, str]:
    namespace = f"n{uuid.uuid4().hex[:10]}"
    Kubectl(server.kubeconfig, tmp_path)("create", "namespace", namespace)
    return auth.load(server.kubeconfig), namespace


class TestEmbedded(EngineSuite):
    """What it does with every server."""
