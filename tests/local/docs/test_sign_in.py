"""The page about signing in does what it says, with `modelyard up`, real kubectl and a real OpenID provider."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kubectl_testing import kubectl
from oidc_testing import RealProvider
from yard_testing import Yard, service, wait_until, write_onnx

PAGE = (Path(__file__).parents[3] / "docs/how-to/sign-in.md").read_text()
BODY = b'{"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'


def said(folder: Path, text: str, **environment: str) -> str:
    """Run lines as a person would, with the commands of this environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
    whole = {**os.environ, "PATH": path, "KUBECACHEDIR": str(folder / "cache"), **environment}
    whole.pop("KUBECONFIG", None)
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=whole, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def call(url: str, token: str = "") -> int:
    request = urllib.request.Request(f"{url}/v2/models/iris/infer", BODY, {"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.timeout(900)  # the first test may have to build kubectl
def test_people_sign_in_as_written(tmp_path: Path) -> None:
    settings, mine, tokens = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    write_onnx(tmp_path / "iris.onnx", 1.0)
    with Yard(tmp_path) as yard, RealProvider() as provider:
        yard.apply(service("iris", model={"uri": "iris.onnx"}))
        assert "created" in said(tmp_path, settings.replace("https://login.example.com/realms/acme", provider.url))
        wait_until(lambda: call(yard.url, provider.token("ana")) == 200, "ana, an analyst of corp")
        assert call(yard.url, provider.token("bo")) == 403
        assert call(yard.url) == 401
        assert json.loads(said(tmp_path, mine, URL=yard.url))["outputs"][0]["data"] == [2.0, 3.0]
        said(tmp_path, tokens)
        assert (tmp_path / "bo.token").stat().st_mode & 0o777 == 0o600
        wait_until(lambda: call(yard.url, (tmp_path / "bo.token").read_text().strip()) == 401, "the end of bo's token")


def test_the_page_names_the_algorithms_that_are_accepted() -> None:
    (line,) = re.findall(r"^Accepted are (.*?)\.", PAGE, re.MULTILINE)
    assert re.findall(r"[A-Z][A-Za-z]+(?:[0-9]{3})?", line)[:-1] == [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
    ]  # fmt: skip
