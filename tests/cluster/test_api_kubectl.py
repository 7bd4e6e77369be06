"""Our kinds on a real API server, with real kubectl: what the embedded one does, and what only Kubernetes has."""

import json
from pathlib import Path

import pytest
import yaml

from cluster_testing import Cluster, Namespace
from kubectl_suite import MANIFEST, KubectlSuite, Space
from kubectl_testing import Kubectl
from modelyard.api.schema import crds

pytestmark = pytest.mark.timeout(300)
NAMES = [crd["metadata"]["name"] for crd in crds()]
DEFINITIONS = Path(__file__).parents[2] / "spec" / "crds"


@pytest.fixture
def kubectl(defined: Cluster) -> Kubectl:
    return defined.kubectl


@pytest.fixture
def space(defined: Cluster, namespace: Namespace, tmp_path: Path) -> Space:
    return Space(defined.kubectl, namespace.name, tmp_path)


class TestKubernetes(KubectlSuite):
    """What kubectl does with every server."""


@pytest.mark.parametrize("name", NAMES)
def test_definitions_are_accepted_as_structural_and_established(kubectl: Kubectl, name: str) -> None:
    found = json.loads(kubectl("get", "crd", name, "-o", "json"))
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}  # and not NonStructuralSchema


def test_definitions_are_the_published_ones_and_a_second_apply_of_them_changes_nothing(defined: Cluster) -> None:
    published = [yaml.safe_load(path.read_text()) for path in sorted(DEFINITIONS.glob("*.yaml"))]
    assert published == sorted(crds(), key=lambda crd: str(crd["metadata"]["name"]))
    diff = defined.kubectl.run("diff", "--server-side", "--force-conflicts", "-f", str(DEFINITIONS), code=None)
    assert (diff.out, diff.code) == ("", 0)


def test_server_side_apply_says_what_it_would_take_from_others(space: Space) -> None:
    assert "serverside-applied" in space("apply", "--server-side", "-f", str(space.manifest))
    assert "serverside-applied" in space("apply", "--server-side", "-f", str(space.manifest))
    assert space("get", "msvc", "iris", "-o", "jsonpath={.metadata.generation}") == "1"
    changed = MANIFEST.replace("replicas: 1", "replicas: 2")
    told = space.fails("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=changed)
    assert "conflict" in told
    assert ".spec.replicas" in told


def test_who_scales_owns_the_replicas(space: Space) -> None:
    space("apply", "--server-side", "-f", str(space.manifest))
    space("scale", "msvc/iris", "--replicas=4")
    rest = MANIFEST.replace("  replicas: 1\n", "")
    space("apply", "--server-side", "-f", "-", stdin=rest)
    assert space("get", "msvc", "iris", "-o", "jsonpath={.spec.replicas}") == "4"


@pytest.mark.parametrize("kind", ["modelservice", "modeljob", "modelstream", "model", "runtime", "accesspolicy"])
def test_every_field_is_explained(kubectl: Kubectl, kind: str) -> None:
    for part in ("spec", "status"):
        shown = kubectl("explain", f"{kind}.{part}", "--recursive=false")
        assert "FIELDS:" in shown
        assert "<no description>" not in shown
