from typing import Any

import msgspec
import pytest

from modelyard.control.drivers.kube.recorded import templates
from modelyard.control.ir import names
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.revision import JobRevision, Revision
from modelyard.control.render import kube, kube_pod, kube_workload
from modelyard.control.render.kube_pod import PodSettings
from modelyard.control.render.kube_workload import Around
from modelyard.testing.driver_rig import crew, following, stream, unit
from modelyard.wire.work import WorkSpec

OWNER: dict[str, Any] = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelService"}
OWNER["metadata"] = {"name": "iris", "namespace": "default", "uid": "u"}
IRIS = unit()
REVISION = Revision(name=IRIS.revision, owner=IRIS.owner, number=1, inputs_hash="0" * 16, inputs={}, unit=IRIS)
POD = {"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": []}}


def test_the_pod_template_is_recorded_beside_the_revision_and_read_apart() -> None:
    stored = kube.controller_revision(REVISION, OWNER, POD)
    assert kube.revision(stored) == REVISION
    assert kube.pod_template(stored) == POD
    assert kube.pod_template(kube.controller_revision(REVISION, OWNER)) is None


def test_what_is_kept_of_a_revision_is_small_and_tells_the_same() -> None:
    template = kube_pod.template(IRIS, PodSettings(), "ab" * 32)
    stored = kube.controller_revision(REVISION, OWNER, template)
    kept = kube.packed(stored)
    assert kept["metadata"] == stored["metadata"]
    assert kube.revision(kept) == REVISION
    assert kube.pod_template(kept) == template
    assert templates({("default", IRIS.revision): kept})(IRIS) == template
    assert len(kept["data"]) < len(msgspec.json.encode(stored["data"])) / 2


def test_a_revision_of_another_program_is_kept_as_it_is() -> None:
    assert kube.pod_template(kube.packed({"data": {"half": "\ud800"}})) is None


def test_the_recorded_template_is_found_again_and_not_one_of_another_unit_of_the_name() -> None:
    stored = kube.controller_revision(REVISION, OWNER, POD)
    recorded = templates({("default", IRIS.revision): stored})
    assert recorded(IRIS) == POD
    assert recorded(msgspec.structs.replace(IRIS, drain_seconds=1.0)) is None
    assert recorded(unit("rose-svc-00001.default")) is None


def test_the_recorded_template_of_a_job_is_found_by_its_owner() -> None:
    task = crew()
    revision = JobRevision(
        name=names.job_revision(task.owner.name), owner=task.owner, inputs_hash="0" * 16, inputs={}, task=task
    )
    owner = {**OWNER, "kind": "ModelJob"}
    stored = kube.controller_revision(revision, owner, POD)
    assert templates({("default", revision.name): stored})(task) == POD


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("iris-svc-00003.default", ("default", "iris-svc-00003")),
        ("a" * 52 + ".team", ("team", "a" * 52)),
    ],
)
def test_what_runs_a_unit_has_its_name(name: str, expected: tuple[str, str]) -> None:
    assert names.kube(name) == expected


def test_a_name_that_is_too_long_is_cut_and_stays_unique() -> None:
    first, second = (names.kube(f"{'a' * 60}-svc-0000{number}.default")[1] for number in (1, 2))
    assert len(first) == len(second) == 52
    assert first != second


def test_resizing_holds_only_for_what_was_asked_for_before() -> None:
    held = {"metadata": {"uid": "u", "annotations": {names.ANNOTATION_ASKED: "2"}}}
    steps = kube_workload.resize(held, 3)
    assert steps[:2] == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/metadata/annotations/modelyard.dev~1asked", "value": "2"},
    ]
    assert {"op": "add", "path": "/spec/replicas", "value": 3} in steps
    assert all("template" not in each["path"] for each in steps)


def test_resizing_what_somebody_took_our_note_from_holds_for_the_object() -> None:
    steps = kube_workload.resize({"metadata": {"uid": "u"}}, 3)
    assert [each["path"] for each in steps if each["op"] == "test"] == ["/metadata/uid"]
    assert steps[1] == {"op": "add", "path": "/metadata/annotations", "value": {}}


def test_a_stream_tells_pods_that_start_later_what_has_begun() -> None:
    held = {"metadata": {"uid": "u", "annotations": {names.ANNOTATION_ASKED: "2", names.ANNOTATION_BEGUN: ""}}}
    work = WorkSpec(stream=msgspec.structs.replace(following(), begun=(0, 3)))
    steps = {each["path"]: each["value"] for each in kube_workload.resize(held, 2, (work, (0, 3)))}
    assert steps["/metadata/annotations/modelyard.dev~1begun"] == "0,3"
    assert '"begun":[0,3]' in steps["/spec/template/metadata/annotations/modelyard.dev~1work"]


def test_a_stream_is_a_replica_set_and_what_serves_a_deployment() -> None:
    kinds = {}
    for each in (IRIS, stream()):
        kinds[each.name] = kube_workload.unit(each, Around(template=POD, owner=OWNER))["kind"]
    assert list(kinds.values()) == ["Deployment", "ReplicaSet"]


def test_a_job_of_a_queue_is_never_resumed_by_us() -> None:
    held = {"metadata": {"uid": "u", "annotations": {names.ANNOTATION_ASKED: "2"}}}
    queued = msgspec.structs.replace(crew(), pod=Pod(queue="team-a"))
    assert {"op": "add", "path": "/spec/suspend", "value": True} in kube_workload.adjust(held, crew(), 0)
    assert all(each["path"] != "/spec/suspend" for each in kube_workload.adjust(held, queued, 0))


def test_whatever_an_overlay_says_keys_and_labels_stay_ours() -> None:
    bad = {
        "metadata": {"labels": {names.LABEL_UNIT: "other"}, "annotations": {names.ANNOTATION_WORK: "{}"}},
        "spec": {
            "automountServiceAccountToken": True,
            "restartPolicy": "Always",
            "containers": [
                {
                    "name": "main",
                    "image": "evil",
                    "command": ["sh"],
                    "env": [{"name": "MODELYARD_LISTEN", "value": "x"}],
                }
            ],
            "volumes": [{"name": "run", "hostPath": {"path": "/"}}],
        },
    }
    ours = kube_pod.template(IRIS, PodSettings(), "d" * 64)
    found = kube_pod.template(msgspec.structs.replace(IRIS, pod=Pod(overlay=bad)), PodSettings(), "d" * 64)
    found["spec"].pop("restartPolicy")
    assert found["metadata"]["labels"] == ours["metadata"]["labels"]
    assert found["metadata"]["annotations"] == ours["metadata"]["annotations"]
    assert found["spec"] == ours["spec"]
