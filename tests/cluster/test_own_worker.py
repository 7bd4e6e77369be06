"""A Runtime whose worker runs in an image of the user's own, on a real cluster."""

from typing import Any

import obstore
import pytest

from cluster_serving_testing import may_call, model, secret, service
from cluster_testing import Namespace
from installation_testing import Installation
from kubectl_testing import until
from modelyard.sdk.client import Client
from s3_testing import S3
from stand_in_image_testing import PREFIX, VERSION
from yard_testing import INPUT, call

Object = dict[str, Any]
PYTHON = "/usr/local/bin/python3"
WORKER = """
import os, signal, struct, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
print("waiting for the server", flush=True)
assert not [each for each in os.environ if each.startswith("MODELYARD_") and each != "MODELYARD_PIPES"]
assert not os.path.exists("/run/secrets/modelyard")
pipes = os.environ["MODELYARD_PIPES"]
inp, out = open(pipes + "/requests", "rb"), open(pipes + "/answers", "wb")
plus = float(open(os.environ["MODEL_DIR"]).read())
def pad(part): return part + bytes(-len(part) % 8)
def send(kind, number, texts=(), tensors=b"", count=0):
    body = struct.pack("<II", len(texts), count)
    for key, text in texts:
        body += pad(struct.pack("<II", len(key), len(text)) + key.encode() + text.encode())
    out.write(struct.pack("<QIB3x", len(body + tensors), number, kind) + body + tensors)
    out.flush()
while head := inp.read(16):
    size, number, kind = struct.unpack("<QIB3x", head)
    body = inp.read(size)
    if kind == 1:
        open(os.environ["TMPDIR"] + "/mine", "w").close()
        send(2, number, [("protocol", "1"), ("input", "FP32 -1,2 X"), ("output", "FP32 -1,2 y")])
    else:
        length = struct.unpack_from("<Q", body, 16)[0]
        values = struct.unpack_from(f"<{length // 4}f", body, 48)
        data = struct.pack(f"<{len(values)}f", *(each + plus for each in values))
        tensor = struct.pack("<HBB4xQqq", 1, 11, 2, length, len(values) // 2, 2) + pad(b"y") + pad(data)
        send(4, number, tensors=tensor, count=1)
"""


def runtime(image: str, worker: str = WORKER) -> Object:
    process = {"image": image, "command": [PYTHON, "-c", worker]}
    needs = {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "10m", "memory": "32Mi"}}
    spec = {"formats": [{"name": "plus"}], "process": process, "resources": needs}
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "Runtime", "metadata": {"name": "plus"}}
    return {**body, "spec": spec}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("stand_in")
def test_it_answers_and_when_it_is_killed_another_one_does(
    installed: Installation, namespace: Namespace, s3: S3
) -> None:
    obstore.put(s3.store("models"), "three.txt", b"3")
    namespace.apply(
        secret("lake", s3.credentials()),
        runtime(f"{PREFIX}runtime:{VERSION}"),
        model("three", "s3://models/three.txt", format="plus"),
        service("three", "three"),
    )
    name, token = f"three.{namespace.name}", may_call(namespace, "app", "three")
    namespace("wait", "modelservice/three", "--for=condition=Ready", "--timeout=120s")
    until(lambda: call(installed.url, name, token) == 200, 30)
    with Client(installed.url, token=token) as client:
        assert (client.predict(name, {"X": INPUT})["y"] == INPUT + 3).all()
    (pod,) = namespace.all("pods", "-l", "modelyard.dev/service=three")
    kill = "import os; os.kill(1, 15)"
    namespace.run("exec", pod["metadata"]["name"], "-c", "worker", "--", PYTHON, "-c", kill, code=None)
    until(lambda: _restarts(namespace) == {"worker": 1, "main": 0}, 60)
    namespace("wait", "modelservice/three", "--for=condition=Ready", "--timeout=90s")
    until(lambda: call(installed.url, name, token) == 200, 60)
    assert _restarts(namespace) == {"worker": 1, "main": 0}


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("stand_in", "installed")
def test_one_that_cannot_be_had_or_ends_is_named(namespace: Namespace, s3: S3) -> None:
    obstore.put(s3.store("models"), "three.txt", b"3")
    read = model("three", "s3://models/three.txt", format="plus")
    namespace.apply(secret("lake", s3.credentials()), runtime("localhost/nobody-has:1"), read)
    until(lambda: _ready(namespace).startswith("ImagePullFailed: "), 60)
    assert "localhost/nobody-has:1" in _ready(namespace)
    namespace.apply(runtime(f"{PREFIX}runtime:{VERSION}", "raise SystemExit('no lexicon')"))
    until(lambda: _ready(namespace).startswith("Crashed: "), 60)
    assert "the worker ended with exit status 1; its log ends with:\nno lexicon" in _ready(namespace)
    namespace.apply(runtime(f"{PREFIX}runtime:{VERSION}"))
    until(lambda: _ready(namespace).startswith("Prepared: "), 90)


def _restarts(namespace: Namespace) -> dict[str, int]:
    (pod,) = namespace.all("pods", "-l", "modelyard.dev/service=three")
    status = pod["status"]
    found = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return {each["name"]: each["restartCount"] for each in found if each["name"] in ("worker", "main")}


def _ready(namespace: Namespace) -> str:
    conditions = namespace.find("model", "three").get("status", {}).get("conditions", [])
    return next((f"{each['reason']}: {each['message']}" for each in conditions if each["type"] == "Ready"), "")
