"""The Helm chart, with real helm: the same objects as `modelyard install`, and values that are checked."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import helm_testing
import modelyard
from installation_testing import SYSTEM, Installation, warnings
from modelyard.api.schema import crds
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import Options

Object = dict[str, Any]
CHART = str(Path(__file__).parents[2] / "deploy/chart")
pytestmark = pytest.mark.timeout(900)  # the first test may have to build helm


def rendered(home: Path, *options: str) -> list[Object]:
    text = helm_testing.run(home, "template", "modelyard", CHART, "--namespace", SYSTEM, *options)
    return [each for each in yaml.safe_load_all(text) if each]


def expected(**options: Any) -> dict[tuple[str, str], Object]:
    """What `modelyard install` would make, but for what Helm does in another way."""
    found = manifests(Options(version=modelyard.__version__, managed_by="Helm", **options), crds())
    return {key(each): each for each in found if each["kind"] != "Namespace"}


def key(body: Object) -> tuple[str, str]:
    return body["kind"], body["metadata"]["name"]


def plain(body: Object) -> Object:
    """Without what is there only because of Helm."""
    if body["kind"] == "CustomResourceDefinition":
        assert body["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    if body["kind"] == "Deployment":
        pod = body["spec"]["template"]["spec"]
        if not pod["imagePullSecrets"]:
            del pod["imagePullSecrets"]
        container = pod["containers"][0]
        container["env"] = [each for each in container["env"] if each.get("value") != ""]
        body["spec"]["template"]["metadata"].pop("annotations", None)
    return body


def assert_same(found: list[Object], wanted: dict[tuple[str, str], Object]) -> None:
    assert {key(each) for each in found} == wanted.keys()
    for each in found:
        other = wanted[key(each)]
        other.get("spec", {}).get("template", {}).get("metadata", {}).pop("annotations", None)
        assert plain(each) == other


def test_the_chart_is_what_the_command_installs(tmp_path: Path) -> None:
    assert_same(rendered(tmp_path), expected())


def test_values_do_what_options_do(tmp_path: Path) -> None:
    values = {
        "image": {"prefix": "registry.example.com/ml/", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
        "operator": {"replicas": 1},
        "gateway": {"replicas": 4, "service": {"type": "NodePort"}, "resources": {"limits": {"memory": "1536Mi"}}},
        "networkPolicies": {"enabled": False},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    resources = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1536Mi"}}
    wanted = expected(
        image_prefix="registry.example.com/ml/",
        pull_policy="Always",
        pull_secrets=("one", "two"),
        operator_replicas=1,
        gateway_replicas=4,
        service_type="NodePort",
        gateway_resources=resources,
        network_policies=False,
    )
    assert_same(rendered(tmp_path, "-f", str(file)), wanted)


def test_helm_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    assert "0 chart(s) failed" in helm_testing.run(tmp_path, "lint", CHART, "--strict", "--namespace", SYSTEM)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--set", "gateway.replica=3"), "replica"),
        (("--set", "gateway.replicas=none"), "replicas"),
        (("--set", "gateway.resources.limits.memory=1G"), "memory"),
        (("--set", "image.pullPolicy=Sometimes"), "pullPolicy"),
        (("--namespace", "default"), "--namespace modelyard-system --create-namespace"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    assert told in helm_testing.run(tmp_path, "template", "modelyard", CHART, "--namespace", SYSTEM, *options, code=1)


def test_the_api_server_takes_what_the_chart_makes(installed: Installation, tmp_path: Path) -> None:
    text = helm_testing.run(tmp_path, "template", "modelyard", CHART, "--namespace", SYSTEM)
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    done = installed.kubectl.run(*apply, stdin=text)
    assert done.out.count("serverside-applied (server dry run)") == len(expected())
    assert warnings(done.err) == []
