"""What was installed serves models, and an upgrade changes nothing of what runs."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cluster_testing import Namespace
from installation_testing import IMAGES, Installation
from kubectl_testing import until
from models_testing import write_onnx
from s3_testing import S3

Object = dict[str, Any]
NEWER = "9.9.9"
pytestmark = pytest.mark.timeout(900)


class Caller:
    """A ServiceAccount that may predict in its namespace, and asks through the gateway's Service."""

    def __init__(self, installed: Installation, namespace: Namespace) -> None:
        self._url, self._name = installed.url, namespace.name
        namespace("create", "serviceaccount", "caller")
        role = ("create", "role", "predict", "--verb=predict", "--resource=modelservices.modelyard.dev")
        namespace(*role)
        namespace("create", "rolebinding", "predict", "--role=predict", f"--serviceaccount={namespace.name}:caller")
        self.token = namespace("create", "token", "caller", "--audience=modelyard", "--duration=1h").strip()

    def ask(self, service: str, token: str | None = None) -> tuple[int, Object]:
        """-> (status, answer) of one prediction of `y = factor x`."""
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        request = urllib.request.Request(
            f"{self._url}/v2/models/{service}.{self._name}/infer",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        bearer = self.token if token is None else token
        if bearer:
            request.add_header("Authorization", f"Bearer {bearer}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def answer(self, service: str) -> list[float]:
        status, body = self.ask(service)
        assert status == 200, body
        found: list[float] = body["outputs"][0]["data"]
        return found


def manifest(s3: S3, folder: Path) -> list[Object]:
    s3.store("models").put("times.onnx", write_onnx(folder / "times.onnx", 2.0).read_bytes())
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lake"}, "stringData": s3.credentials()}
    model = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "times"},
        "spec": {"uri": "s3://models/times.onnx", "credentials": "lake"},
    }
    service = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "times"},
        "spec": {"model": {"name": "times"}, "replicas": 2, "resources": {"requests": {"cpu": "50m"}}},
    }
    return [secret, model, service]


def serve(installed: Installation, namespace: Namespace, s3: S3, folder: Path) -> Caller:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest(s3, folder)})
    (folder / "all.yaml").write_text("\n---\n".join(json.dumps(each) for each in json.loads(text)["items"]))
    begun = time.monotonic()
    installed.run("apply", "-f", str(folder / "all.yaml"), "-n", namespace.name, "--wait")
    print(f"apply to Ready: {time.monotonic() - begun:.1f} s")
    return Caller(installed, namespace)


def identities(namespace: Namespace) -> set[str]:
    """The pods of models and how often they were started."""
    return {
        f"{pod['metadata']['uid']} {pod['status']['containerStatuses'][0]['restartCount']}"
        for pod in namespace.all("pods", "-l", "modelyard.dev/service=times")
    }


def templates(namespace: Namespace) -> list[Object]:
    """One node and no token: nothing in them is a pod's own."""
    return [each["spec"] for each in namespace.all("pods", "-l", "modelyard.dev/service=times")]


def test_a_service_answers_those_who_may_and_an_upgrade_restarts_nothing(
    installed: Installation, namespace: Namespace, s3: S3, tmp_path: Path
) -> None:
    caller = serve(installed, namespace, s3, tmp_path)
    until(lambda: caller.ask("times")[0] == 200, 30)
    assert caller.answer("times") == [2, 4, 6, 8]
    assert caller.ask("times", token="")[0] == 401
    other = namespace("create", "token", "default", "--audience=modelyard").strip()
    assert caller.ask("times", token=other)[0] == 403

    before, images = identities(namespace), {each["image"] for each in templates(namespace)[0]["containers"]}
    for name in IMAGES:
        old, new = (f"localhost/modelyard-{name}:{tag}" for tag in (version(installed), NEWER))
        installed.cluster.node.exec("ctr", "-n", "k8s.io", "images", "tag", "--force", old, new)
    begun = time.monotonic()
    try:
        installed.run("install", "--image-tag", NEWER, "--pull-policy", "Never")
        print(f"upgrade: {time.monotonic() - begun:.1f} s")
        assert caller.answer("times") == [2, 4, 6, 8]
        assert identities(namespace) == before
        namespace("scale", "modelservice", "times", "--replicas=3")
        until(lambda: len(identities_ready(namespace)) == 3, 90)
        first, *others = templates(namespace)
        assert [each for each in others if each != first] == [], "a new pod is like its siblings"
        assert {each["image"] for each in first["containers"]} == images
        assert identities(namespace) >= before
    finally:
        installed.install()


def identities_ready(namespace: Namespace) -> set[str]:
    found = set()
    for pod in namespace.all("pods", "-l", "modelyard.dev/service=times"):
        if all(each["ready"] for each in pod["status"].get("containerStatuses") or [{"ready": False}]):
            found.add(pod["metadata"]["uid"])
    return found


def version(installed: Installation) -> str:
    image = installed.find("deployment", "modelyard-operator")["spec"]["template"]["spec"]["containers"][0]["image"]
    return str(image).rpartition(":")[2]
