import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.control.drivers.kube.index import Index
from modelyard.control.drivers.kube.observe import Facts
from modelyard.control.ir.values import Key

Object = dict[str, Any]
READY = Path(__file__).parent / "recorded" / "ready.json"
OWNER = Key(kind="ModelService", namespace="default", name="ready")
NAME = "ready-svc-00001.default"
PLACE = ("default", "ready-svc-00001")
FACTS = Facts(now=4e9)


class World:
    """An index, and who was told."""

    def __init__(self) -> None:
        self.told: list[Key] = []
        self.index = Index(self.told.append)
        found = json.loads(READY.read_text())
        self.workload: Object = found["workload"]
        self.pod: Object = found["pods"][0]
        for body in (self.workload, self.pod):
            body["metadata"]["namespace"] = "default"
        self.change = self.index.workload_handler("Deployment")

    def see_pod(self, pod: Object | None = None) -> None:
        pod = pod or self.pod
        self.index.pod_handler(("default", pod["metadata"]["name"]), None, pod)

    def members(self) -> list[str]:
        found = self.index.observed(OWNER, FACTS)
        return [member.name for unit in found.units for member in unit.members]


@pytest.fixture
def world() -> World:
    return World()


def test_a_unit_is_found_by_name_and_owner_with_its_pods(world: World) -> None:
    world.change(PLACE, None, world.workload)
    world.see_pod()
    assert world.members() == [world.pod["metadata"]["name"]]
    assert world.index.observed(None, FACTS) == world.index.observed(OWNER, FACTS)
    assert world.index.observed(Key(kind="ModelService", namespace="x", name="ready"), FACTS).units == ()
    found = world.index.unit(NAME)
    assert found is not None
    assert (found[0].name, found[2]) == (NAME, "Deployment")
    assert set(world.told) == {OWNER}


def test_what_is_deleted_is_forgotten_and_told(world: World) -> None:
    world.change(PLACE, None, world.workload)
    world.see_pod()
    world.told.clear()
    world.index.pod_handler(("default", world.pod["metadata"]["name"]), world.pod, None)
    assert world.members() == []
    world.change(PLACE, world.workload, None)
    assert world.index.unit(NAME) is None
    assert world.told == [OWNER, OWNER]


@pytest.mark.parametrize(
    "references",
    [
        [],
        [{"kind": "ReplicaSet", "name": "other-svc-00001-abc", "uid": "x", "controller": True}],
        [{"kind": "DaemonSet", "name": "ready-svc-00001-abc", "uid": "x", "controller": True}],
    ],
)
def test_a_pod_that_only_bears_the_labels_is_none_of_ours(world: World, references: list[Object]) -> None:
    world.change(PLACE, None, world.workload)
    world.pod["metadata"]["ownerReferences"] = references
    world.see_pod()
    assert world.members() == []


def test_what_was_written_counts_until_the_watch_brings_something_newer(world: World) -> None:
    world.change(PLACE, None, world.workload)
    version = int(world.workload["metadata"]["resourceVersion"])
    world.index.learn("Deployment", asked(world.workload, 5, version + 10))
    assert world.index.observed(OWNER, FACTS).units[0].replicas == 5
    world.change(PLACE, None, asked(world.workload, 2, version + 5))
    assert world.index.observed(OWNER, FACTS).units[0].replicas == 5
    world.change(PLACE, None, asked(world.workload, 3, version + 11))
    assert world.index.observed(OWNER, FACTS).units[0].replicas == 3


def test_the_end_of_an_earlier_one_of_the_name_does_not_end_the_new_one(world: World) -> None:
    fresh = {**world.workload, "metadata": {**world.workload["metadata"], "uid": "new", "resourceVersion": "999999999"}}
    world.change(PLACE, None, world.workload)
    world.index.learn("Deployment", fresh)
    world.change(PLACE, world.workload, None)
    assert world.index.unit(NAME) is not None


@pytest.mark.parametrize("text", ["", "{", '{"name": 1}', '{"unknown": true}'])
def test_what_another_program_wrote_is_no_unit(world: World, text: str) -> None:
    world.workload["metadata"]["annotations"]["modelyard.dev/unit-spec"] = text
    world.change(PLACE, None, world.workload)
    assert world.index.observed(None, FACTS).units == ()


def test_a_spec_under_another_name_is_no_unit(world: World) -> None:
    world.change(("default", "other"), None, world.workload)
    assert world.index.observed(None, FACTS).units == ()


def asked(body: Object, replicas: int, version: int) -> Object:
    metadata = body["metadata"]
    annotations = {**metadata["annotations"], "modelyard.dev/asked": str(replicas)}
    return {**body, "metadata": {**metadata, "annotations": annotations, "resourceVersion": str(version)}}
