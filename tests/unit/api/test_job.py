"""What a ModelJob may say and what of it may change, as an API server enforces it from the definition."""

from typing import Any

import pytest

from apiserver_testing import KINDS, Object, make
from modelyard.api import load
from modelyard.api.job import ModelJob
from modelyard.base.errors import InvalidFields
from modelyard.control.apiserver.admission import admit
from modelyard.control.apiserver.status import StatusError

KIND = KINDS["ModelJob"]
SCORE: Object = {"model": {"name": "forest"}, "input": {"uri": "in"}, "output": {"uri": "out"}}
RUN: Object = {"command": ["python", "train.py"], "output": {"uri": "out"}}
MADE: Object = {"name": "digits-v2", "path": "model"}
ANOTHER = "cannot be changed: a job runs once; apply a job of another name"


def job(name: str = "score", **spec: Any) -> Object:
    return make("ModelJob", name, spec={"score": SCORE, **spec})


def program(run: Object = RUN, **spec: Any) -> Object:
    return make("ModelJob", "train", spec={"run": run, **spec})


def stored(obj: Object, old: Object | None = None) -> Object:
    return admit(KIND, obj, old)[0]


def refused(obj: Object, old: Object | None = None) -> str:
    with pytest.raises(StatusError) as error:
        admit(KIND, obj, old)
    assert (error.value.code, error.value.reason) == (422, "Invalid")
    return error.value.message


def test_a_small_job_gets_its_defaults() -> None:
    spec = stored(job())["spec"]
    assert spec["score"]["output"]["mode"] == "create"
    assert spec["score"]["errors"] == {"onError": "fail"}
    assert spec["score"]["batchRows"] == 16_384
    assert {name: spec[name] for name in ("parallelism", "backoffLimit", "suspend", "priority")} == {
        "parallelism": 1,
        "backoffLimit": 6,
        "suspend": False,
        "priority": "normal",
    }
    run = stored(program())["spec"]["run"]
    assert (run["nodes"], run["output"]["mode"]) == (1, "create")


def test_exactly_one_of_score_and_run_is_set() -> None:
    assert "set exactly one of score and run" in refused(make("ModelJob", spec={}))
    assert "set exactly one of score and run" in refused(job(run=RUN))


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (job("a" * 41), "metadata.name is at most 40 characters, because runners are named after it"),
        (job(parallelism=0), "spec.parallelism"),
        (job(parallelism=1001), "spec.parallelism"),
        (job(backoffLimit=-1), "spec.backoffLimit"),
        (job(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds"),
        (job(ttlSecondsAfterFinished=-1), "spec.ttlSecondsAfterFinished"),
        (job(priority="urgent"), "spec.priority"),
        (job(env=[{"name": "MODELYARD_X", "value": "1"}]), "names that start with MODELYARD_ are reserved"),
        (job(resources={"requests": {"nvidia.com/gpu": 1}}), "requests may name cpu and memory; GPUs are limits"),
        (job(resources={"limits": {"gpu": 1}}), "limits may name cpu, memory and devices by their full names"),
        (job(resources={"limits": {"kubernetes.io/batch-cpu": 1}}), "limits may name cpu, memory and devices"),
        (job(resources={"claims": [{"name": "gpu"}, {"name": "gpu"}]}), "spec.resources.claims"),
        (job(serviceAccountName="No Body"), "spec.serviceAccountName"),
        (job(podTemplate={"metadata": {"labels": {"a": 1}}}), "spec.podTemplate.metadata.labels"),
        (job(podTemplate={"spec": [1]}), "spec.podTemplate.spec"),
        (job(score={**SCORE, "model": {}}), "set exactly one of name and uri"),
        (job(score={**SCORE, "input": {"uri": ""}}), "spec.score.input.uri"),
        (job(score={**SCORE, "input": {"uri": "in", "format": "xml"}}), "spec.score.input.format"),
        (job(score={**SCORE, "output": {"uri": "out", "format": "images"}}), "spec.score.output.format"),
        (job(score={**SCORE, "errors": {"maxPercent": 101}}), "spec.score.errors.maxPercent"),
        (job(score={**SCORE, "batchRows": 0}), "spec.score.batchRows"),
        (program({"command": []}), "spec.run.command"),
        (program({**RUN, "nodes": 65}), "spec.run.nodes"),
        (program({**RUN, "output": {"uri": "out", "mode": "append"}}), "spec.run.output.mode"),
        (program(parallelism=2), "parallelism goes with score; for run set run.nodes"),
        (program({"command": ["a"], "outputModel": MADE}), "outputModel needs output, where its artifact is kept"),
        (program({**RUN, "outputModel": {**MADE, "path": "../model"}}), "spec.run.outputModel.path"),
        (program({**RUN, "outputModel": {**MADE, "path": "/model"}}), "spec.run.outputModel.path"),
        (
            program({**RUN, "output": {"uri": "u" * 2043}, "outputModel": MADE}),
            "output.uri and outputModel.path together are at most 2047 characters",
        ),
        (
            program({**RUN, "environment": {"python": "p", "image": "i"}}),
            "set only one of python, requirements, lock and image",
        ),
    ],
)
def test_what_makes_no_job_is_refused_with_its_place(obj: Object, expected: str) -> None:
    assert expected in refused(obj)


def test_the_longest_uri_of_a_model_that_a_job_makes_is_accepted() -> None:
    assert stored(program({**RUN, "output": {"uri": "u" * 2042}, "outputModel": MADE}))


ENV = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": 2}}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (job(), job(score={**SCORE, "output": {"uri": "other"}}), ANOTHER),
        (job(), job(score={**SCORE, "model": {"name": "other"}}), ANOTHER),
        (program(), program({**RUN, "command": ["python", "other.py"]}), ANOTHER),
        (program(), program({**RUN, "nodes": 2}), ANOTHER),
        (job(), make("ModelJob", "score", spec={"run": RUN}), "score and run cannot be exchanged"),
        (job(), job(resources=RESOURCES), f"resources {ANOTHER}"),
        (job(resources=RESOURCES), job(), f"resources {ANOTHER}"),
        (job(resources=RESOURCES), job(resources={"requests": {"cpu": "2"}}), f"resources {ANOTHER}"),
        (job(), job(env=ENV), f"env {ANOTHER}"),
        (job(env=ENV), job(), f"env {ANOTHER}"),
        (job(env=ENV), job(env=[ENV[0], {"name": "B", "value": "3"}]), f"env {ANOTHER}"),
        (job(), job(priority="high"), f"priority {ANOTHER}"),
        (job(priority="low"), job(), f"priority {ANOTHER}"),
    ],
)
def test_what_is_recorded_when_a_job_starts_cannot_be_changed(old: Object, new: Object, expected: str) -> None:
    assert expected in refused(new, stored(old))


@pytest.mark.parametrize(
    "change",
    [
        {"parallelism": 4},
        {"backoffLimit": 0},
        {"activeDeadlineSeconds": 60},
        {"ttlSecondsAfterFinished": 60},
        {"suspend": True},
        {"queue": "team-a"},
    ],
)
def test_how_much_at_once_and_how_long_can_be_changed(change: Object) -> None:
    everything: Object = {"env": ENV, "resources": RESOURCES, "priority": "high"}
    old = stored(job(**everything))
    new = stored(job(**everything, **change), old)
    assert new["spec"] == {**old["spec"], **change}
    assert stored(job(**everything), new)["spec"] == old["spec"], "and back"


@pytest.mark.parametrize("obj", [job(), job(env=ENV, resources=RESOURCES), program({**RUN, "outputModel": MADE})])
def test_the_same_manifest_is_applied_again_without_a_change(obj: Object) -> None:
    old = stored(obj)
    assert stored(obj, old) == old
    labelled = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert stored(labelled, old)["spec"] == old["spec"]


def test_a_status_of_a_job_that_runs_and_one_of_a_job_that_is_over_are_stored() -> None:
    old = stored(job())
    at = "2027-01-15T08:00:00Z"
    status = {
        "observedGeneration": 1,
        "startTime": at,
        "failures": {"since": "2027-01-15T08:00:00.123456Z", "before": 2},
        "shards": {"planned": 8, "committed": 8},
        "metrics": [{"name": "accuracy", "value": "0.975"}],
        "conditions": [
            {"type": "Complete", "status": "True", "reason": "Completed", "message": "", "lastTransitionTime": at}
        ],
    }
    assert admit(KIND, {**old, "status": status}, old, subresource="status")[0]["status"] == status
    decoded = load.decode({**old, "status": status})
    assert isinstance(decoded, ModelJob)
    assert decoded.status.failures is not None
    assert decoded.status.failures.before == 2


def test_all_errors_of_a_job_come_at_once() -> None:
    with pytest.raises(InvalidFields) as caught:
        load.decode(job(parallelism=0, priority="urgent", score={**SCORE, "batchRows": 0, "other": 1}))
    assert {error.path for error in caught.value.errors} == {
        "spec.parallelism",
        "spec.priority",
        "spec.score.batchRows",
        "spec.score.other",
    }
