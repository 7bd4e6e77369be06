"""The page about seeing what the gateway does is true, with `modelyard up` and real kubectl."""

import asyncio
import base64
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

import otlp_testing
from kubectl_testing import kubectl
from yard_testing import Yard, service, wait_until, write_onnx

PAGE = (Path(__file__).parents[3] / "docs/how-to/observe.md").read_text()
SERIES = re.compile(r"^(modelyard_[a-z_]+?)(?:_bucket|_sum|_count)?(?:\{| )", re.MULTILINE)


def said(yard: Yard, text: str) -> str:
    """What lines print, with the commands of this environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "KUBECACHEDIR": str(yard.folder / "cache"), "URL": yard.url}
    environment.pop("KUBECONFIG", None)
    done = subprocess.run(
        ["bash", "-ec", text],
        cwd=yard.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(yard: Yard, token: str, path: str = "/metrics") -> tuple[int, str]:
    """As Prometheus does it."""
    config = yaml.safe_load((yard.data / "kubeconfig").read_text())["clusters"][0]["cluster"]
    authority = config.get("certificate-authority-data")
    context = ssl.create_default_context(cafile=config.get("certificate-authority"))
    if authority:
        context.load_verify_locations(cadata=base64.b64decode(authority).decode())
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(config["server"] + path, headers=headers)
    try:
        with urllib.request.urlopen(request, context=context) as answer:
            assert answer.headers["content-type"].startswith("text/plain")
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


@pytest.fixture
def yard(tmp_path: Path) -> Any:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    with Yard(tmp_path) as found:
        found.apply(service("plus", model={"uri": "plus.onnx"}))
        yield found


@pytest.mark.timeout(900)  # the first test may have to build kubectl
def test_requests_ids_load_metrics_and_traces_are_seen_as_written(yard: Yard) -> None:
    log, ids, describe, prometheus, tracing = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert yard.predict("plus") == 1.0
    _see_the_log(yard, log, ids)
    wait_until(lambda: re.search(r"plus-svc-00001 .* \d+$", said(yard, f"{describe}true"), re.MULTILINE), "the load")
    assert 'modelyard_gateway_requests_total{model="plus.default"' in said(yard, prometheus)
    token = (yard.folder / "prometheus.token").read_text().strip()
    assert (yard.folder / "prometheus.token").stat().st_mode & 0o777 == 0o600
    status, text = read(yard, token)
    assert status == 200
    told = {each for line in re.findall(r"^\| (`modelyard_.*)$", PAGE, re.MULTILINE) for each in _names(line)}
    assert set(SERIES.findall(text)) <= told
    wait_until(lambda: set(SERIES.findall(read(yard, token)[1])) == told, "all series that the page names")
    assert read(yard, "")[0] == 401
    assert read(yard, token, "/api/v1/secrets")[0] == 403
    assert "reconciles" not in read(yard, token, "/metrics?model=plus.default")[1]
    own = "export KUBECONFIG=$(modelyard kubeconfig)"
    nobody = said(yard, f"{own}; kubectl create serviceaccount nobody >&2; kubectl create token nobody")
    assert read(yard, nobody.strip())[0] == 403
    asyncio.run(_trace(yard, tracing))


def _see_the_log(yard: Yard, log: str, ids: str) -> None:
    assert "x-request-id: order-17" in said(yard, ids)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{yard.url}/v2/models/nope")

    def is_whole() -> str:
        shown = said(yard, log)
        return shown if "order-17" in shown and '"status":404' in shown else ""

    *table, failed = wait_until(is_whole, "the log").splitlines()
    assert any("POST /v2/models/plus/infer" in each and " plus-svc-00001 " in each for each in table)
    entry = json.loads(failed)
    fields = {
        each for line in re.findall(r"^\| (`[a-z].*?) \|", PAGE, re.MULTILINE) for each in re.findall(r"`(\w+)`", line)
    }
    assert entry.keys() <= fields


def _names(line: str) -> list[str]:
    first, *others = re.findall(r"`([a-z_]+)(?:\{[a-z,]+\})?`", line.partition("|")[0])
    return [first, *(each if each.startswith("modelyard") else f"modelyard_gateway{each}" for each in others)]


async def _trace(yard: Yard, tracing: str) -> None:
    async with otlp_testing.collector() as collector:
        text = tracing.replace("127.0.0.1:4317", collector.address)
        assert text != tracing
        await asyncio.to_thread(said, yard, f"export KUBECONFIG=$(modelyard kubeconfig)\n{text}")
        headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        request = urllib.request.Request(f"{yard.url}/v2/models/plus", headers=headers)
        async with asyncio.timeout(30):
            while not collector.spans:
                await asyncio.to_thread(lambda: urllib.request.urlopen(request).read())
                await asyncio.sleep(0.2)
    assert collector.spans[0].tags["modelyard.model"] == "plus.default"
