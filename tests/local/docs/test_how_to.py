"""The how-to pages do what they say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models_testing import write_onnx
from s3_testing import KEY, S3, SECRET
from yard_testing import Yard

ROOT = Path(__file__).parents[3]
DOCS = sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def shell(folder: Path, text: str, **variables: str) -> str:
    """Run lines as a person would, with the commands of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    environment.pop("KUBECONFIG", None)
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_page_that_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.timeout(240)
def test_jobs_prepare_train_and_score_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/02-jobs", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("data"))
    with Yard(tmp_path):
        first, second = blocks("how-to/jobs.md", "bash")
        assert "digits-trained" in shell(tmp_path, first)
        watched = shell(tmp_path, second)
        assert "450" in watched
        assert "Completed" in watched
        (program,) = blocks("how-to/jobs.md", "python")
        counted = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        found = re.fullmatch(r"450 images, (\d+) recognized\n", counted)
        assert found, counted
        assert int(found[1]) > 420
        told = shell(tmp_path, "modelyard suspend digits-score 2>&1 || true; modelyard why digits-score")
        assert "450 rows" in told


@pytest.mark.timeout(180)
def test_a_model_comes_from_an_object_store_as_written(tmp_path: Path) -> None:
    page = "how-to/models-in-object-stores.md"
    project = tmp_path / "project"
    project.mkdir()
    with S3(tmp_path / "weed") as s3, Yard(project):
        import_model(s3, tmp_path)
        (project / "model.yaml").write_text(blocks(page, "yaml")[0])
        first, second = blocks(page, "bash")
        shell(project, first, KEY=KEY, SECRET=SECRET, ENDPOINT=s3.endpoint)
        assert "Ready" in shell(project, second)


def import_model(s3: S3, folder: Path) -> None:
    s3.store("models").put("forest.onnx", write_onnx(folder / "m.onnx").read_bytes())
