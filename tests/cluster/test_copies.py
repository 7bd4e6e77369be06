"""On a real cluster: what comes of copies of requests, and in which zones pods are."""

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster_serving_testing import may_call, model, models, secret, service
from cluster_testing import HOST, Cluster
from cluster_testing import namespace as fresh
from installation_testing import Installation
from kubectl_testing import until
from modelyard.control.ir import names
from modelyard.control.render.kube_container import REPORT_PORT
from modelyard.wire import report as reports
from modelyard.wire.report import Report
from yard_testing import call

Object = dict[str, Any]
ZONE = "test-zone-1"
FIRST, SECOND = "plus-svc-00001", "plus-svc-00002"


def report(pod: Object) -> Report:
    """As the operator reads it."""
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{REPORT_PORT}/report", timeout=10) as answer:
        return reports.decode(answer.read())


@pytest.mark.timeout(400)
def test_a_revision_that_gets_copies_tells_how_its_answers_differ(
    installed: Installation, cluster: Cluster, tmp_path: Path
) -> None:
    (node,) = installed.kubectl("get", "nodes", "-o", "name").split()
    installed.kubectl("label", "--overwrite", node, f"{names.LABEL_ZONE}={ZONE}")
    try:
        with models(tmp_path, HOST) as s3, fresh(cluster) as namespace:
            namespace.apply(
                secret("lake", s3.credentials()),
                *(model(f"plus-{n}", f"s3://models/plus-{n}.onnx") for n in (1, 2)),
                service("plus", "plus-1", replicas=1),
            )
            ready = ("wait", "modelservice/plus", "--for=condition=Ready", "--timeout=90s")
            namespace(*ready)
            copies = {"revision": "latest", "mirror": {"percent": 100, "comparePercent": 100}}
            shares = [{"revision": FIRST, "percent": 100}, copies]
            namespace.apply(service("plus", "plus-2", replicas=1, traffic=shares))
            namespace(*ready)
            name, token = f"plus.{namespace.name}", may_call(namespace, "app", "plus")

            def told() -> dict[str, Any]:
                rows = namespace.find("modelservice", "plus")["status"]["traffic"]
                return next((each.get("mirror") or {} for each in rows if each["revision"] == SECOND), {})

            def compares() -> bool:
                assert call(installed.url, name, token) in (200, 401, 403)  # the role is a moment old
                return told().get("different", 0) >= 1 and "latencyMilliseconds" in told()

            until(compares, 60)
            found = told()
            assert found["different"] == found["compared"] > 0
            assert (found["largestDifference"], found["noisy"]) == ("1", 0)
            assert found["servingLatencyMilliseconds"] >= 0
            for pod in namespace.all("pods", "-l", "modelyard.dev/service=plus"):
                assert pod["metadata"]["labels"][names.LABEL_ZONE] == ZONE
                used = report(pod).usage
                assert used, "a container sees its own control group"
                assert 0.2 < used.cpu_seconds < 200
                assert 10 * 2**20 < used.memory_byte_seconds < 200 * 2**30
    finally:
        installed.kubectl("label", node, f"{names.LABEL_ZONE}-")
