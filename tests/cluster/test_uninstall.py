"""Modelyard goes without a trace, and only when nothing of anybody goes with it unasked."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import helm_testing
from cluster_testing import Namespace
from installation_testing import SYSTEM, Installation

Object = dict[str, Any]
CHART = str(Path(__file__).parents[2] / "deploy/chart")
pytestmark = pytest.mark.timeout(900)  # it may have to build helm


@pytest.fixture(scope="module")
def going(installed: Installation) -> Iterator[Installation]:
    """It is there again for other tests, whatever happens."""
    yield installed
    installed.run("uninstall", code=None)
    installed.install()


def model(name: str, kind: str, spec: Object) -> Object:
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def leave_former_role(installed: Installation) -> None:
    """As a former version could have."""
    labels = installed.find("serviceaccount", "modelyard-operator")["metadata"]["labels"]
    metadata = {"name": "modelyard-former", "labels": labels}
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": []}
    apply = ("apply", "--server-side", "--field-manager=modelyard-install", "-f", "-")
    installed.kubectl(*apply, stdin=json.dumps(body))


def left(installed: Installation) -> list[str]:
    """What bears our name, and what has finalizers of ours."""
    kinds = "crd,clusterrole,clusterrolebinding,namespace"
    found = installed.kubectl("get", kinds, "-o", "name").split()
    return [name for name in found if "modelyard" in name]


def test_it_refuses_while_there_are_objects_then_goes_and_comes_again(
    going: Installation, namespace: Namespace
) -> None:
    namespace.apply(
        model("one", "Model", {"uri": "https://127.0.0.1:9/nothing.onnx"}),
        model("served", "ModelService", {"model": {"name": "one"}}),
        model("other", "ModelService", {"model": {"name": "none"}}),
    )
    refused = going.run("uninstall", code=1)
    assert f"2 modelservices in namespace {namespace.name}" in refused.err
    assert f"1 model in namespace {namespace.name}" in refused.err
    assert len(namespace.all("modelservices")) == 2
    assert going.find("deployment", "modelyard-operator")["spec"]["replicas"] == 2

    leave_former_role(going)
    done = going.run("uninstall", "--delete-objects")
    assert "clusterrole/modelyard-former deleted" in done.out
    assert "server https://" in done.out.splitlines()[0]
    assert done.out.splitlines()[-1] == "Modelyard is removed"
    assert "namespace/modelyard-system deleted" in done.out
    assert left(going) == []
    workloads = json.loads(namespace("get", "deployments,jobs,pods,networkpolicies", "-o", "json"))["items"]
    assert [each for each in workloads if not each["metadata"].get("deletionTimestamp")] == []
    again = going.run("uninstall")
    assert "nothing to remove" in again.out

    begun = time.monotonic()
    told = going.install().out
    print(f"install to Ready: {time.monotonic() - begun:.1f} s")
    assert f"namespace/{SYSTEM} created" in told
    assert "is ready" in told


def test_helm_installs_upgrades_and_leaves_what_people_have_made(
    going: Installation, namespace: Namespace, tmp_path: Path
) -> None:
    going.run("uninstall", "--delete-objects")
    cluster = ("--kubeconfig", str(going.cluster.kubeconfig), "--kube-context", going.context, "--namespace", SYSTEM)
    wait = ("--wait", "--timeout", "150s")
    helm_testing.run(tmp_path, "install", "modelyard", CHART, "--create-namespace", *cluster, *wait)
    assert len(going.pods("gateway")) == 2
    refused = going.run("install", code=1)
    assert "made by Helm" in refused.err
    namespace.apply(model("one", "Model", {"uri": "https://127.0.0.1:9/nothing.onnx"}))

    changes = ("--set", "gateway.replicas=1", "--set", "operator.replicas=1")
    helm_testing.run(tmp_path, "upgrade", "modelyard", CHART, *cluster, *wait, *changes)
    assert going.find("deployment", "modelyard-gateway")["spec"]["replicas"] == 1

    helm_testing.run(tmp_path, "uninstall", "modelyard", *cluster, *wait)
    assert [each["metadata"]["name"] for each in namespace.all("models")] == ["one"]
    namespace("delete", "model", "one")
    assert "Modelyard is removed" in going.run("uninstall").out
    assert left(going) == []
