from typing import Any

import pytest

from modelyard.sdk import progress
from modelyard.sdk.progress import State

Object = dict[str, Any]
ROWS: Object = {"rows": 370_000, "totalRows": 1_000_000, "progressPercentage": 37, "rowsPerSecond": 21_000}


def job(reason: str = "", message: str = "", true: str = "", **status: Any) -> Object:
    conditions = [{"type": "Complete", "status": "False", "reason": reason, "message": message}] if reason else []
    if true:
        conditions = [each for each in conditions if each["type"] != true]
        conditions.append({"type": true, "status": "True", "reason": reason, "message": message})
    return {"kind": "ModelJob", "metadata": {"name": "j"}, "status": {"conditions": conditions, **status}}


@pytest.mark.parametrize(
    ("body", "state", "line"),
    [
        (job(), State.WAITING, "not looked at yet"),
        (job("ModelNotFound", "no Model m"), State.WAITING, "Waiting  ModelNotFound: no Model m"),
        (job("Crashed", "ended:\nboom"), State.WAITING, "Waiting  Crashed: ended ..."),
        (job("Starting", "runners start"), State.STARTING, "Starting  runners start"),
        (
            job("Running", "x", **ROWS, estimatedRemainingSeconds=30, errorRows=2, failed=1),
            State.RUNNING,
            "37%  370,000 of 1,000,000 rows, 21,000 rows/s, 30 s left, 2 errors, 1 failure",
        ),
        (
            job("Running", "x", metrics=[{"name": "loss", "value": "0.2"}]),
            State.RUNNING,
            "Running  loss 0.2",
        ),
        (job("Running", "reading the input"), State.RUNNING, "Running  reading the input"),
        (
            job("Suspended", "suspend is true", "Suspended", shards={"planned": 8, "committed": 1}, rows=1),
            State.SUSPENDED,
            "Suspended  1 of 8 shards, 1 row are committed and stay",
        ),
        (job("Suspended", "suspend is true", "Suspended"), State.SUSPENDED, "Suspended  suspend is true"),
        (job("RowFailed", "row 7", "Failed"), State.FAILED, "Failed  RowFailed: row 7"),
    ],
)
def test_a_job_is_told_in_a_word_and_a_line(body: Object, state: State, line: str) -> None:
    if state is State.FAILED:
        body["status"]["conditions"].append({"type": "Complete", "reason": "RowFailed", "message": "row 7"})
    found = progress.of(body)
    assert (found.state, progress.line(found)) == (state, line)


def test_a_summary_says_what_was_done_and_where_everything_is() -> None:
    found = progress.of(
        job(
            "Completed",
            "",
            "Complete",
            rows=999_998,
            totalRows=1_000_000,
            errorRows=2,
            startTime="2027-01-15T07:58:00Z",
            completionTime="2027-01-15T07:58:41Z",
            output="s3://lake/out",
            deadLetters="s3://lake/out/_run/1/errors",
            outputModel="made",
            digest="sha256:" + "a" * 64,
            metrics=[{"name": "accuracy", "value": "0.975"}],
        )
    )
    assert progress.summary("modeljob/j", found, 0.0).splitlines() == [
        "modeljob/j is Complete: 999,998 rows in 41 s, 2 could not be scored",
        "  results       s3://lake/out",
        "  dead letters  s3://lake/out/_run/1/errors",
        "  output model  made (sha256:aaaaaaaaaaaa)",
        "  metrics       accuracy 0.975",
    ]


def test_a_summary_of_a_failed_job_says_what_stays() -> None:
    status = {"shards": {"planned": 8, "committed": 3}, "rows": 5, "totalRows": 9, "startTime": "2027-01-15T08:00:00Z"}
    found = progress.of(job("RowFailed", "row 7", "Failed", **status))
    told = progress.summary("modeljob/j", found, 1_800_000_005.0)
    assert told == "modeljob/j has failed after 5 s; 3 of 8 shards, 5 of 9 rows are committed and stay"


def test_a_clock_that_differs_makes_no_negative_time() -> None:
    found = progress.of(job("Running", startTime="2027-01-15T08:00:00Z"))
    assert found.seconds(0.0) == 0.0
    assert progress.of(job("Running")).seconds(0.0) is None
