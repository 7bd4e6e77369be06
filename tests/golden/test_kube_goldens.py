"""Goldens of what runs units and tasks on Kubernetes: `kube/<case>.in.yaml` -> `kube/<case>.out.yaml`.

Regenerate with `UPDATE_GOLDENS=1 make test` and read the difference. `tests/cluster` gives them to a real API server.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key
from modelyard.control.render import kube_pod, kube_workload
from modelyard.control.render.kube_pod import PodSettings
from modelyard.control.render.kube_workload import Around

HERE = Path(__file__).parent / "kube"
CASES = sorted(HERE.glob("*.in.yaml"))
DIGEST = "0" * 64


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_what_runs_it_is_as_recorded(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    found = yaml.safe_dump_all(_objects(given), sort_keys=False, width=110)
    expected = path.with_name(path.name.replace(".in.", ".out."))
    if os.environ.get("UPDATE_GOLDENS"):
        expected.write_text(found)
    assert found == expected.read_text(), "pods of new revisions change; if they should, regenerate and read"


def test_every_case_has_its_result() -> None:
    names = {path.name for path in HERE.glob("*.yaml")}
    assert {name.replace(".in.", ".out.") for name in names} == {name for name in names if ".out." in name}
    assert CASES


def _objects(given: dict[str, Any]) -> list[dict[str, Any]]:
    settings = msgspec.convert(given.get("settings", {}), PodSettings)
    if "unit" in given:
        unit = msgspec.convert(given["unit"], Unit)
        template = kube_pod.template(unit, settings, DIGEST if unit.work.serve else "")
        workload = kube_workload.unit(unit, Around(template=template, owner=_stored(unit.owner)))
        holder = {**workload, "metadata": {**workload["metadata"], "uid": "00000000-0000-4000-8000-000000000002"}}
        return [workload, *kube_workload.companions(unit, holder, settings.namespace)]
    task = msgspec.convert(given["task"], Task)
    owner = _stored(task.owner)
    around = Around(template=kube_pod.template(task, settings), owner=owner)
    return [*kube_workload.job_companions(task, owner, settings.namespace), kube_workload.job(task, around)]


def _stored(owner: Key) -> dict[str, Any]:
    metadata = {"name": owner.name, "namespace": owner.namespace, "uid": "00000000-0000-4000-8000-000000000001"}
    return {"apiVersion": "modelyard.dev/v1alpha1", "kind": owner.kind, "metadata": metadata}
