"""What we render for Kubernetes is what a real API server takes, under the *restricted* Pod Security profile."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_testing import Namespace

Object = dict[str, Any]
GOLDENS = sorted((Path(__file__).parent.parent / "golden" / "kube").glob("*.out.yaml"))
NEEDS_MORE = ("runtimeClassName", "priorityClassName")
"""Name objects of the whole cluster, without which no pod may be made."""


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.name.removesuffix(".out.yaml"))
def test_a_golden_is_taken(path: Path, namespace: Namespace) -> None:
    objects = [_moved(each, namespace.name) for each in yaml.safe_load_all(path.read_text())]
    pods = [_pod(each, namespace.name) for each in objects if "template" in each["spec"]]
    for account in {pod["spec"].get("serviceAccountName") for pod in pods} - {None}:
        namespace("create", "serviceaccount", account)
    for each in (*objects, *pods):
        said = namespace.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(each))
        assert "Warning" not in said.err
    assert pods


def _moved(body: Object, namespace: str) -> Object:
    return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


def _pod(workload: Object, namespace: str) -> Object:
    """What its controller would make: only pods themselves are held to the profile."""
    template = workload["spec"]["template"]
    spec = {field: value for field, value in template["spec"].items() if field not in NEEDS_MORE}
    metadata = {**template["metadata"], "name": workload["metadata"]["name"], "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
