"""The page about AccessPolicies does what it says, with `modelyard up` and real kubectl."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kubectl_testing import kubectl
from yard_testing import Yard, service, wait_until, write_onnx

PAGE = (Path(__file__).parents[3] / "docs/how-to/access-policies.md").read_text()
BODY = b'{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'


def said(folder: Path, text: str) -> str:
    """Run lines as a person would, with the commands of this environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
    whole = {**os.environ, "PATH": path, "KUBECACHEDIR": str(folder / "cache")}
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=whole, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def call(url: str, name: str, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        asked = urllib.request.Request(f"{url}/v2/models/{name}/infer", BODY, headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.timeout(900)  # the first test may have to build kubectl
def test_policies_tighten_as_written(tmp_path: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    write_onnx(tmp_path / "plus.onnx", 1.0)
    with Yard(tmp_path) as yard:
        yard.apply(*(service(name, model={"uri": "plus.onnx"}) for name in ("iris", "rain")))
        assert (call(yard.url, "iris"), call(yard.url, "rain")) == (200, 200)
        told = said(tmp_path, block)
        assert "yes" in told.splitlines()
        assert "AccessPolicy iris" in told
        token = said(tmp_path, "KUBECONFIG=$(modelyard kubeconfig) kubectl create token batch").strip()
        wait_until(lambda: call(yard.url, "iris", token) == 200, "the account may call")
        assert call(yard.url, "iris") == 401
        wait_until(lambda: call(yard.url, "rain") == 429, "the limit")
