"""Pods that share a claim fetch a model once."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_serving_testing import model, models, secret, service
from cluster_testing import HOST, Cluster, Namespace
from s3_testing import LossyProxy

Object = dict[str, Any]
WRITE = """
try:
    open("/var/lib/modelyard/cache/mine", "w")
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def claim(cluster: Cluster, namespace: Namespace, tmp_path: Path) -> Iterator[str]:
    """A claim whose volume is a folder of this machine, which is our node's, too."""
    _ = cluster.node
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)  # by nobody's user in pods
    size = {"storage": "1Gi"}
    shared: Object = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {**shared, "capacity": size, "hostPath": {"path": str(folder), "type": "Directory"}}
    claimed = {**shared, "volumeName": namespace.name, "resources": {"requests": size}}
    namespace.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": namespace.name}, "spec": volume},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": claimed},
    )
    yield "models"
    cluster.kubectl("delete", "persistentvolume", namespace.name, "--wait=false")


@pytest.mark.usefixtures("installed")
def test_a_second_service_downloads_nothing_and_models_cannot_change_what_is_kept(
    namespace: Namespace, claim: str, tmp_path: Path
) -> None:
    fetched: list[float] = []

    def count(head: bytes) -> str:
        if head.startswith(b"GET /models/plus-1.onnx"):
            fetched.append(time.time())
        return "pass"

    overlay = {"spec": {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": claim}}]}}
    with models(tmp_path, HOST) as s3:
        proxy = LossyProxy(s3.port, count, HOST)
        try:
            namespace.apply(secret("lake", s3.credentials(proxy.port)), model("plus", "s3://models/plus-1.onnx"))
            namespace("wait", "model/plus", "--for=condition=Ready", "--timeout=90s")
            prepared = len(fetched)
            assert prepared >= 1
            for name in ("first", "second"):
                namespace.apply(service(name, "plus", podTemplate=overlay))
                namespace("wait", f"modelservice/{name}", "--for=condition=Ready", "--timeout=90s")
                assert len(fetched) == prepared + 1, f"{name}: {fetched}"
        finally:
            proxy.close()
    (pod,) = (each["metadata"]["name"] for each in namespace.all("pods", "-l", "modelyard.dev/service=second"))
    written = namespace("exec", pod, "-c", "main", "--", "/usr/local/bin/python3", "-c", WRITE)
    assert written.strip() == "Read-only file system"
