"""The pages about installing and upgrading do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from installation_testing import SYSTEM, Installation
from kubectl_testing import kubectl
from modelyard.api.schema import crds
from modelyard.cli import main
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import Options

DOCS = Path(__file__).parents[2] / "docs/how-to"
pytestmark = pytest.mark.timeout(600)


def blocks(page: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def said(installed: Installation, folder: Path, text: str) -> str:
    """Run lines as a person would, with the commands of this environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
    environment = {
        **os.environ,
        "PATH": path,
        "KUBECONFIG": str(installed.cluster.kubeconfig),
        "KUBECACHEDIR": str(folder / "cache"),
    }
    text = text.replace("my-cluster", installed.context)
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr + installed.told()
    return done.stdout


def test_it_is_installed_looked_at_and_removed_as_written(installed: Installation, tmp_path: Path) -> None:
    apply, command, look, remove = blocks("install.md")
    applied = said(installed, tmp_path, apply)
    assert "deployment.apps/modelyard-operator" in applied
    assert len(re.findall(r"successfully rolled out", applied)) == 2
    assert len(re.findall(r"^modelyard-(?:operator|gateway)-\S+ +1/1 +Running", applied, re.MULTILINE)) == 4
    assert "is ready" in said(installed, tmp_path, command)
    assert "a token is needed" in said(installed, tmp_path, look)
    assert remove.strip() == "modelyard uninstall --context my-cluster", "test_uninstall.py does it"


def test_it_is_upgraded_as_written_and_nothing_of_models_restarts(installed: Installation, tmp_path: Path) -> None:
    compare, command, prune, count, history = blocks("upgrade.md")
    installed.install()
    compared = said(installed, tmp_path, compare)
    assert compared.startswith("modelyard ")
    before = {pod["metadata"]["uid"] for name in ("operator", "gateway") for pod in installed.pods(name)}
    assert "is ready" in said(installed, tmp_path, command)
    assert {pod["metadata"]["uid"] for name in ("operator", "gateway") for pod in installed.pods(name)} == before
    said(installed, tmp_path, count)
    assert "pruned" not in said(installed, tmp_path, prune)
    former = ("-n", SYSTEM, "create", "configmap", "former", "--save-config")
    installed.kubectl(*former)
    installed.kubectl("-n", SYSTEM, "label", "configmap", "former", "app.kubernetes.io/managed-by=modelyard-install")
    assert "configmap/former pruned" in said(installed, tmp_path, prune)
    assert "REVISION" in said(installed, tmp_path, history)


def test_the_page_names_what_is_installed() -> None:
    text = (DOCS / "install.md").read_text()
    named = set(re.findall(r"^\| (?:namespace|Deployment|Service|ConfigMap) `([a-z-]+)`", text, re.MULTILINE))
    made = manifests(Options(version="1"), crds())
    people = {"Namespace", "Deployment", "Service"}
    expected = {each["metadata"]["name"] for each in made if each["kind"] in people} - {"modelyard-xds"}
    assert named == expected | {"modelyard", "modelyard-install"}


def test_the_options_of_the_page_are_those_of_command_and_chart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = re.findall(r"^\| (`--.*?) \| (.*?) \|", (DOCS / "install.md").read_text(), re.MULTILINE)
    assert main(["install", "--help"]) == 0
    told = capsys.readouterr().out
    options = [option for row, _ in rows for option in re.findall(r"--[a-z-]+", row)]
    assert options
    assert [option for option in options if option not in told] == []
    values = yaml.safe_load((DOCS.parents[1] / "deploy/chart/values.yaml").read_text())
    for _, named in rows:
        for path in re.findall(r"`([A-Za-z.]+)`", named):
            found = values
            for step in path.split("."):
                found = found[step]


def test_the_namespace_of_the_pages_is_the_one_that_is_used() -> None:
    for page in ("install.md", "upgrade.md"):
        assert set(re.findall(r"-n ([a-z0-9.-]+)", (DOCS / page).read_text())) <= {SYSTEM, "k8s.io"}
