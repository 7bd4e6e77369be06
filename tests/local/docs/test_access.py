"""The page about access does what it says, with `modelyard up` and real kubectl."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_testing import kubectl
from yard_testing import Yard, service

PAGE = (Path(__file__).parents[3] / "docs/how-to/access.md").read_text()
NOBODY = "system:serviceaccount:default:ana"


def shell(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run lines as a person would, with the commands of this environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "KUBECACHEDIR": str(folder / "cache")}
    environment.pop("KUBECONFIG", None)
    return subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


def said(folder: Path, text: str) -> str:
    done = shell(folder, text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(900)  # the first test may have to build kubectl
def test_somebody_else_gets_access_as_written(tmp_path: Path) -> None:
    first, second, third, fourth = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    with Yard(tmp_path) as yard:
        yard.cli("apply", "-f", "-", stdin=json.dumps(service("iris", model={"name": "none"})))
        shown = said(tmp_path, first)
        assert re.search(r"^yes$", shown, re.MULTILINE)
        assert re.search(r"^modelservices\.modelyard\.dev .*\[iris\] .*\[get predict\]", shown, re.MULTILINE)
        assert NOBODY in said(tmp_path, second)
        for file in ("ana.token", "ana.kubeconfig"):
            assert (tmp_path / file).stat().st_mode & 0o777 == 0o600
        owner = (yard.data / "kubeconfig").read_text()
        (token,) = re.findall(r"token: (\S+)", owner)
        assert token not in (tmp_path / "ana.kubeconfig").read_text()
        assert "iris" in said(tmp_path, third)
        refused = shell(tmp_path, third.replace("modelservice iris", "modelservices"))
        assert f'User "{NOBODY}" cannot list resource "modelservices"' in refused.stderr
        assert "iris" in said(tmp_path, fourth)
        assert "Forbidden" in shell(tmp_path, third.replace("modelservice iris", "secrets")).stderr
        assert (tmp_path / "ana.token").read_text().strip() not in (tmp_path / "up.log").read_text()
        assert not [each for each in yard.data.rglob("*.log") if "eyJ" in each.read_text(errors="replace")]
        said(tmp_path, "kubectl --kubeconfig $(modelyard kubeconfig) delete serviceaccount ana")
        assert "Unauthorized" in shell(tmp_path, third).stderr


def test_the_page_names_what_the_roles_allow() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == ["view", "edit", "admin", "cluster-admin"]
