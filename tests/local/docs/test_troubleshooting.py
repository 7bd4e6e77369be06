"""The pages about troubles and about clusters, as far as they hold on one machine."""

import re
from pathlib import Path
from typing import Any

import yaml

from modelyard.base.conditions import Reason
from yard_testing import Yard, write_onnx

from .test_how_to import ROOT, blocks, shell

PAGE = "how-to/troubleshooting.md"


def test_why_and_logs_answer_as_written(tmp_path: Path) -> None:
    (asked,) = blocks(PAGE, "bash")
    write_onnx(tmp_path / "m.onnx", 1.0)
    service = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "digits"},
        "spec": {"model": {"uri": "m.onnx"}},
    }
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(service))
    with Yard(tmp_path):
        shell(tmp_path, "modelyard apply -f service.yaml --wait")
        assert "ModelService digits is Ready and serving" in shell(tmp_path, asked)


def test_every_reason_of_the_page_is_one() -> None:
    tables = re.findall(r"^\| (`[^|]+) \|", (ROOT / "docs" / PAGE).read_text(), re.MULTILINE)
    named = {word for row in tables for word in re.findall(r"`(\w+)`", row)}
    assert named <= {str(each) for each in Reason}
    assert {"LocalPath", "OverlayForbidden", "QuotaExceeded", "PodRefused", "OutOfMemory", "ImagePullFailed"} <= named


def test_the_overlay_that_the_page_shows_is_valid(tmp_path: Path) -> None:
    fragment = blocks("how-to/kubernetes.md", "yaml")[1]
    body: dict[str, Any] = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "digits"},
        "spec": {"model": {"name": "forest"}, **yaml.safe_load(fragment)["spec"]},
    }
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(body))
    assert "1 object is valid" in shell(tmp_path, "modelyard validate service.yaml")
    body["spec"]["podTemplate"]["spec"]["hostNetwork"] = True
    (tmp_path / "service.yaml").write_text(yaml.safe_dump(body))
    told = shell(tmp_path, "modelyard validate service.yaml 2>&1 || true")
    assert "spec.podTemplate.spec.hostNetwork: must be false" in told
