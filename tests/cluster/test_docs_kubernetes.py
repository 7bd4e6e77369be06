"""The pages about clusters do what they say."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from installation_testing import Installation
from kubectl_testing import kubectl
from modelyard.base.conditions import Reason
from s3_testing import S3
from yard_testing import write_onnx

DOCS = Path(__file__).parents[2] / "docs/how-to"
pytestmark = pytest.mark.timeout(600)


class Reader:
    """Somebody who types what a page says, in a folder, with the namespace `team` under another name."""

    def __init__(self, installed: Installation, folder: Path) -> None:
        self.installed, self.folder = installed, folder
        self.namespace = f"h8-docs-{uuid.uuid4().hex[:8]}"
        self.port = 18080

    def blocks(self, page: str, language: str = "bash") -> list[str]:
        found = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
        context = self.installed.context
        return [re.sub(r"\bteam\b", self.namespace, each.replace("my-cluster", context)) for each in found]

    def types(self, text: str) -> str:
        path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
        environment = {
            **os.environ,
            "PATH": path,
            "KUBECONFIG": str(self.installed.cluster.kubeconfig),
            "KUBECACHEDIR": str(self.folder / "cache"),
        }
        done = subprocess.run(
            ["bash", "-ec", text],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            shown = ("get", "modelyard,pods,events", "-o", "wide")
            told = self.installed.kubectl.run("-n", self.namespace, *shown, code=None)
            pytest.fail(f"{text}\n{done.stdout}{done.stderr}\n{told.out}\n{self.installed.told()}")
        return done.stdout


@pytest.fixture(scope="module")
def reader(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    found = Reader(installed, tmp_path_factory.mktemp("reader"))
    try:
        yield found
    finally:
        installed.kubectl.run("delete", "namespace", found.namespace, "--wait=false", code=None)


def test_a_model_is_pushed_applied_looked_at_and_called(reader: Reader, installed: Installation, s3: S3) -> None:
    push, apply, look, call_from_pod, call_from_outside = reader.blocks("kubernetes.md")
    (reader.folder / "models").mkdir()
    write_onnx(reader.folder / "models/forest.onnx", 1.0)
    (reader.folder / "store.env").write_text("".join(f"{name}={value}\n" for name, value in s3.credentials().items()))
    (reader.folder / "row.json").write_text(json.dumps([[1.0, 2.0]]))
    pushed = reader.types(push)
    assert re.search(r"^uri: s3://models/pushed/[0-9a-f]{64}/forest\.onnx$", pushed, re.MULTILINE)
    applied = reader.types(apply)
    assert "=> new: 2 replicas start" in applied
    assert "modelservice/digits" in applied
    told = reader.types(look)
    assert "is Ready and serving" in told
    caller = reader.blocks("kubernetes.md", "yaml")[0]
    runtime = installed.find("deployment", "modelyard-operator")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert "python:3.13-slim" in caller
    local = caller.replace("python:3.13-slim", runtime).replace("- python3\n", "- /usr/local/bin/python3\n")
    (reader.folder / "caller.yaml").write_text(local)
    assert '"name"' in reader.types(call_from_pod)
    assert reader.types(call_from_outside)


def test_nothing_differs_after_applying(reader: Reader) -> None:
    """Goes on where the other page ends."""
    after, wait = reader.blocks("gitops.md")
    assert reader.types(after).count("unchanged") == 2
    assert "condition met" in reader.types(wait)


def test_the_health_checks_know_all_kinds_and_reasons(reader: Reader) -> None:
    """What Argo CD would do with them is not tried here."""
    (lua,) = reader.blocks("gitops.md", "yaml")
    (listed,) = re.findall(r"local passing = \{(.*?)\}", lua)
    reasons = set(re.findall(r"(\w+)=true", listed))
    assert reasons <= {str(each) for each in Reason}
