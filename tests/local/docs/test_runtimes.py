"""The page on workers does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from modelyard.api.runtime import RuntimeSpec
from yard_testing import Yard

PAGE = (Path(__file__).parents[3] / "docs/how-to/runtimes.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_a_worker_of_ones_own_serves_as_written(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(block("python"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with Yard(tmp_path):
        command = ["bash", "-ec", block("bash")]
        environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"} | {"PATH": path}
        told = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
    assert told.returncode == 0, told.stdout + told.stderr
    assert re.findall(r"[0-9.]+", told.stdout)[-2:] == ["3.5", "4.5"], told.stdout


def test_the_runtime_with_an_image_is_one() -> None:
    found = RuntimeSpec.model_validate(yaml.safe_load(block("yaml"))["spec"])
    assert found.process.image
