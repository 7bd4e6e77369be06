"""`modelyard why` for jobs: a table of statuses, and what is answered."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.sdk.diagnosis import Case, Diagnosis, diagnose
from modelyard.sdk.merge import annotated

Object = dict[str, Any]
NOW = 1_800_000_000.0
STARTED, ENDED = "2027-01-15T07:58:00Z", "2027-01-15T07:58:41Z"
SCORE = {"score": {"model": {"name": "forest"}, "input": {"uri": "in"}, "output": {"uri": "out"}}, "backoffLimit": 3}
TRAIN = {"run": {"command": ["x"], "output": {"uri": "out"}, "outputModel": {"name": "made", "path": "m"}}}
HALF: Object = {
    "run": 1,
    "rows": 370,
    "totalRows": 1000,
    "shards": {"planned": 8, "committed": 3},
    "output": "s3://lake/out",
}
WORKING: Object = {
    **HALF,
    "startTime": STARTED,
    "progressPercentage": 37,
    "rowsPerSecond": 21,
    "estimatedRemainingSeconds": 30,
    "errorRows": 2,
    "deadLetters": "s3://lake/out/_run/1/errors",
    "active": 2,
    "failed": 1,
}


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": ENDED,
    }


def job(reason: str, message: str = "", *, state: str = "", spec: Object = SCORE, **status: Any) -> Object:
    """state: the condition that is True."""
    conditions = [
        condition("Complete", "True" if state == "Complete" else "False", reason, message),
        condition("Failed", "True" if state == "Failed" else "False", reason, message if state == "Failed" else ""),
        condition("Suspended", "True" if state == "Suspended" else "False", reason, message),
    ]
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelJob",
        "metadata": {"name": "j", "generation": 1},
        "spec": spec,
        "status": {"conditions": conditions, **status},
    }


def model(reason: str, message: str) -> Object:
    return {
        "kind": "Model",
        "metadata": {"name": "forest", "generation": 1},
        "spec": {"uri": "models/forest.onnx"},
        "status": {"conditions": [condition("Ready", "False", reason, message)]},
    }


def why(body: Object, **case: Any) -> Diagnosis:
    return diagnose(Case(body=body, **case), NOW)


@pytest.mark.parametrize(
    ("body", "headline", "healthy"),
    [
        (
            job("Completed", state="Complete", **{**WORKING, "rows": 1_000_000, "completionTime": ENDED}),
            "ModelJob j is done: 1,000,000 rows in 41 s, 2 could not be scored",
            True,
        ),
        (
            job("Completed", state="Complete", spec=TRAIN, startTime=STARTED, completionTime=ENDED),
            "ModelJob j is done in 41 s",
            True,
        ),
        (
            job("AlreadyDone", state="Complete"),
            "ModelJob j is done: an earlier job had done exactly this work; nothing was done again",
            True,
        ),
        (
            job("Running", **WORKING),
            "ModelJob j is running: 37%, 370 of 1,000 rows, 21 rows/s, 30 s left, 2 errors, 1 failure",
            True,
        ),
        (job("Running", spec=TRAIN), "ModelJob j is running", True),
        (job("Starting", "runners are being started"), "ModelJob j is starting", True),
        (job("Suspended", "suspend is true", state="Suspended", **HALF), "ModelJob j is suspended (for 79s)", True),
        (
            job("SchemaMismatch", "no column X", state="Failed"),
            "ModelJob j has failed: SchemaMismatch (79s ago)",
            False,
        ),
        (job("ModelNotFound", "there is no Model"), "ModelJob j does not run: ModelNotFound", False),
        (job("ModelNotReady", "Model forest: is being read"), "ModelJob j waits for its model: ModelNotReady", True),
        (job("Unschedulable", "asks for 64 GiB"), "ModelJob j does not run: Unschedulable", False),
        ({**job("Running"), "status": {}}, "ModelJob j has not been looked at yet", False),
    ],
)
def test_the_first_line_is_the_answer(body: Object, headline: str, healthy: bool) -> None:
    found = why(body)
    assert (found.headline, found.healthy) == (headline, healthy)
    assert found.text().splitlines()[0] == headline


@pytest.mark.parametrize(
    ("reason", "spec", "step"),
    [
        (Reason.BACKOFF_LIMIT_EXCEEDED, SCORE, "modelyard logs j"),
        (Reason.DEADLINE_EXCEEDED, SCORE, "or be faster with spec.parallelism"),
        (Reason.DEADLINE_EXCEEDED, TRAIN, "allow more with spec.activeDeadlineSeconds"),
        (Reason.OUTPUT_NOT_EMPTY, SCORE, "set spec.score.output.mode to append or overwrite, or another output.uri"),
        (Reason.OUTPUT_NOT_EMPTY, TRAIN, "set spec.run.output.mode to overwrite, or another output.uri"),
        (Reason.OUTPUT_IN_USE, SCORE, "modelyard get modeljobs -A"),
        (Reason.OUTPUT_OVERTAKEN, SCORE, "an output.uri of its own"),
        (Reason.INPUT_NOT_FOUND, SCORE, "put the input at in"),
        (Reason.INPUT_INVALID, SCORE, "write that file again"),
        (Reason.INPUT_CHANGED, SCORE, "leave in alone"),
        (Reason.SCHEMA_MISMATCH, SCORE, "modelyard describe model forest"),
        (Reason.ACCESS_DENIED, SCORE, "Secret"),
        (Reason.BUCKET_NOT_FOUND, SCORE, "make the bucket"),
        (Reason.STORE_UNREACHABLE, SCORE, "see that the store answers"),
        (Reason.ERROR_BUDGET_EXCEEDED, SCORE, "spec.score.errors.maxRows"),
        (Reason.ROW_FAILED, SCORE, "deadLetter or skip"),
        (Reason.SHARD_FAILED, SCORE, "modelyard logs j"),
        (Reason.PROGRAM_FAILED, TRAIN, "modelyard logs j"),
        (Reason.OUTPUT_MISSING, TRAIN, "OUTPUT_DIR"),
        (Reason.OUTPUT_MODEL_EXISTS, TRAIN, "modelyard delete model made"),
        (Reason.PART_TOO_LARGE, SCORE, "spec.score.output.keep"),
        (Reason.ENVIRONMENT_MISSING, TRAIN, "spec.run.environment"),
        (Reason.UNSUPPORTED, TRAIN, "correct the manifest"),
        (Reason.INVALID, SCORE, "correct the manifest"),
        (Reason.CRASHED, SCORE, "modelyard logs j"),
        (Reason.DISK_FULL, SCORE, "make room"),
    ],
)
def test_a_failed_job_is_mended_deleted_and_applied_again(reason: Reason, spec: Object, step: str) -> None:
    found = why(job(reason, "as said", state="Failed", spec=spec))
    assert any(step in each for each in found.next_steps), found.next_steps
    assert found.next_steps[-1] == "then: modelyard delete modeljob j, and apply it again"
    assert "again by itself" not in found.text()


def test_what_a_failed_job_had_committed_stays_and_is_not_done_again() -> None:
    found = why(job("RowFailed", "in/a.parquet, row 7", state="Failed", **WORKING, completionTime=ENDED))
    assert "3 of 8 shards, 370 of 1,000 rows are committed at s3://lake/out and stay" in found.facts
    assert "2 rows could not be scored: s3://lake/out/_run/1/errors" in found.facts
    assert "1 failure so far; backoffLimit allows 3" in found.facts
    assert "it ended after 41 s" in found.facts
    assert found.next_steps[-1].startswith("the same work goes on where it was; other work")


def test_a_program_that_had_begun_a_run_at_its_output_needs_to_overwrite_it() -> None:
    step = "with output.mode: overwrite, where it had begun a run at its output"
    assert why(job("ProgramFailed", state="Failed", spec=TRAIN, run=1)).next_steps[-1] == step
    assert why(job("ProgramFailed", state="Failed", spec=TRAIN, startTime=STARTED)).next_steps[-1] == step
    alone = {"run": {"command": ["x"]}}
    assert step not in why(job("ProgramFailed", state="Failed", spec=alone, startTime=STARTED)).next_steps


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (Reason.MODEL_NOT_FOUND, "apply Model forest, or the job that makes it: this job then starts by itself"),
        (Reason.PREEMPTED, "it goes on by itself when there is room; jobs of a higher spec.priority come first"),
        (Reason.UNSCHEDULABLE, "make room; what else runs here: modelyard get modelyard -A"),
        (Reason.SECRET_NOT_FOUND, "apply the Secret that is missing: the job then goes on by itself"),
        (Reason.CRASHED, "it is tried again by itself, with growing pauses, until spec.backoffLimit"),
        (Reason.STORE_UNREACHABLE, "it is tried again by itself, with growing pauses, until spec.backoffLimit"),
    ],
)
def test_a_job_that_waits_says_for_what(reason: Reason, step: str) -> None:
    found = why(job(reason, "as said"))
    assert step in found.next_steps
    assert not any("then: modelyard delete" in each for each in found.next_steps)


def test_the_cause_is_looked_for_in_the_model() -> None:
    body = job("ArtifactInvalid", "Model forest: models/forest.onnx is truncated")
    found = why(body, model=model("ArtifactInvalid", "models/forest.onnx is truncated"))
    assert found.headline == "ModelJob j does not run: ArtifactInvalid"
    assert found.text().count("truncated") == 1
    assert "save a good model at models/forest.onnx, then: modelyard refresh forest" in found.next_steps
    assert found.next_steps[-1] == "the job then starts by itself"


def test_a_running_job_tells_its_time_its_last_failure_and_where_results_are() -> None:
    body = job("Running", "3 of 8 shards; the last failure: was ended by SIGKILL", **WORKING)
    body["spec"] = {**SCORE, "activeDeadlineSeconds": 7200}
    found = why(body)
    assert found.details == "the last failure: was ended by SIGKILL"
    assert found.facts == (
        "3 of 8 shards are committed",
        "2 runners work",
        "1 failure so far; backoffLimit allows 3",
        "it has run for 2m of 120m that activeDeadlineSeconds allows",
        "results at s3://lake/out",
        "2 rows could not be scored: s3://lake/out/_run/1/errors",
    )


def test_resuming_a_job_names_the_manifest_where_that_suspends_it() -> None:
    body = job("Suspended", "suspend is true", state="Suspended", **HALF)
    assert why(body).next_steps == ("modelyard resume j",)
    assert "3 of 8 shards, 370 of 1,000 rows are committed at s3://lake/out and stay" in why(body).facts
    declared = {**body, "spec": {**SCORE, "suspend": True}}
    assert "take suspend: true out of the manifest" in why(annotated(declared)).next_steps[1]


@given(
    st.sampled_from(list(Reason)),
    st.sampled_from(["", "Complete", "Failed", "Suspended"]),
    st.text(max_size=30),
    st.sampled_from([SCORE, TRAIN]),
    st.sampled_from([{}, HALF, WORKING]),
)
def test_every_state_has_an_answer(reason: Reason, state: str, message: str, spec: Object, status: Object) -> None:
    body = job(reason, message, state=state, spec=spec, **status)
    found = why(body, model=model(reason, message))
    assert found.headline in found.text()
    if state:
        assert found.healthy == (state != "Failed")
