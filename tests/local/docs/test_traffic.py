"""The page about traffic does what it says."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from yard_testing import Yard, wait_until

from .test_how_to import ROOT, blocks, shell

PAGE = "how-to/traffic.md"


def answers(said: str) -> dict[str, int]:
    """How many each version gave."""
    return {number: int(count) for number, count in re.findall(r"^version (\d+): (\d+) answers, 9\d\.\d%", said, re.M)}


@pytest.mark.timeout(300)
def test_a_new_model_comes_to_callers_step_by_step_as_written(tmp_path: Path) -> None:
    made = shutil.ignore_patterns("models", "heldout.npz", ".modelyard")
    shutil.copytree(ROOT / "examples/04-traffic", tmp_path, dirs_exist_ok=True, ignore=made)
    with Yard(tmp_path) as yard:
        first, mirrored, shared, everything = blocks(PAGE, "bash")
        assert answers(shell(tmp_path, first)) == {"1": 450}
        said = shell(tmp_path, mirrored)
        described = mirrored.strip().splitlines()[-1]
        assert answers(said) == {"1": 450, "2": 450}
        assert "digits-svc-00001 100%; digits-svc-00002 copies of 100%, tag next" in said
        assert "/v2/models/digits/versions/next" in said
        wait_until(lambda: "answers to copies differ" in shell(tmp_path, described), "the comparison")
        found = answers(shell(tmp_path, shared))
        assert set(found) == {"1", "2"}
        assert 45 <= found["2"] <= 135
        assert answers(shell(tmp_path, everything)) == {"2": 450}
        assert yard.condition("digits")["status"] == "True"


def test_what_holds_is_valid_as_written(tmp_path: Path) -> None:
    (fragment,) = blocks(PAGE, "yaml")
    service = yaml.safe_load((ROOT / "examples/04-traffic/service.yaml").read_text())
    service["spec"] |= yaml.safe_load(fragment)["spec"]
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(service))
    assert "1 object is valid" in shell(tmp_path, "modelyard validate service.yaml")
