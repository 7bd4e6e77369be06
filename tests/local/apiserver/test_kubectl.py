"""Real kubectl against a server in a process of its own."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_suite import KubectlSuite, Space
from kubectl_testing import Kubectl, running

pytestmark = pytest.mark.timeout(900)  # the first test may have to build kubectl
SINCE = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    folder = tmp_path_factory.mktemp("kubectl")
    with running(folder / "data") as server:
        yield Kubectl(server.kubeconfig, folder)


@pytest.fixture
def space(kubectl: Kubectl, tmp_path: Path) -> Iterator[Space]:
    name = f"n{uuid.uuid4().hex[:10]}"
    kubectl("create", "namespace", name)
    yield Space(kubectl, name, tmp_path)
    kubectl("delete", "namespace", name, "--wait=true", "--timeout=20s")


class TestEmbedded(KubectlSuite):
    """What kubectl does with every server."""


def test_a_row_shows_whether_an_object_is_ready(space: Space) -> None:
    space.apply()
    condition = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": SINCE}
    patch = json.dumps({"status": {"conditions": [condition]}})
    space("patch", "msvc", "iris", "--subresource=status", "--type=merge", "-p", patch)
    assert space("get", "msvc").splitlines()[1].split()[1:3] == ["True", "Serving"]


def test_definitions_can_be_looked_at(kubectl: Kubectl) -> None:
    names = kubectl("get", "crds", "-o", "name")
    assert "customresourcedefinition.apiextensions.k8s.io/models.modelyard.dev" in names
    kubectl("wait", "crd/models.modelyard.dev", "--for=condition=Established", "--timeout=5s")
    assert "the server doesn't have a resource type" in kubectl.run("get", "pods", code=1).err


def test_api_resources_and_version_are_told(kubectl: Kubectl) -> None:
    shown = kubectl("api-resources")
    assert "modelservices" in shown
    assert "leases" in shown
    assert "Server Version: v1.32" in kubectl("version")
    assert "ok" in kubectl("get", "--raw", "/readyz")


def test_server_side_apply_says_that_it_is_not_there(space: Space) -> None:
    shown = space.fails("apply", "--server-side", "-f", str(space.manifest))
    assert "kubectl apply works without --server-side" in shown
