"""The commands about jobs, against the embedded API server. A thread plays the controllers."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cli_testing import STAMP, Project, condition, follow_up, model
from modelyard.control.kube.resources import MODELJOBS, MODELS
from modelyard.storage.digest import digest

Object = dict[str, Any]
SCORE: Object = {"score": {"model": {"name": "forest"}, "input": {"uri": "in"}, "output": {"uri": "out"}}}
HALF: Object = {
    "run": 1,
    "rows": 370,
    "totalRows": 1000,
    "progressPercentage": 37,
    "shards": {"planned": 8, "committed": 3},
    "output": "out",
    "startTime": STAMP,
}
DONE: Object = {**HALF, "rows": 1000, "progressPercentage": 100, "completionTime": "2026-01-02T03:04:46Z"}


def job(name: str = "score", **spec: Any) -> Object:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelJob",
        "metadata": {"name": name},
        "spec": spec or SCORE,
    }


def said(reason: str, message: str = "", *, true: str = "", generation: int = 1, **status: Any) -> Object:
    """A status as the controllers write it."""
    return {
        **status,
        "conditions": [
            condition("True" if true == kind else "False", reason, message, kind=kind, generation=generation)
            for kind in ("Complete", "Failed", "Suspended")
        ],
    }


def changing(project: Project, *statuses: Object) -> threading.Thread:
    changes: list[Callable[[Object], Object]] = [lambda _body, status=each: status for each in statuses]  # type: ignore[misc]
    return follow_up(project, MODELJOBS, "score", *changes)


def test_waiting_for_a_job_ends_with_what_it_has_done(project: Project) -> None:
    project.write("job.yaml", job())
    controller = changing(project, said("Running", **HALF), said("Completed", true="Complete", **DONE))
    answer = project.run("apply", "-f", "job.yaml", "--wait", "--timeout", "15")
    controller.join()
    assert answer.status == 0, answer.err
    assert "modeljob/score is Complete: 1,000 rows in 41 s\n  results  out\n" in answer.out


def test_waiting_for_a_job_that_fails_ends_at_once(project: Project) -> None:
    project.write("job.yaml", job())
    controller = changing(project, said("Running", **HALF), said("RowFailed", "in, row 7", true="Failed", **HALF))
    answer = project.run("apply", "-f", "job.yaml", "--wait", "--timeout", "60")
    controller.join()
    assert answer.status == 1
    assert answer.err == (
        "error: ModelJob score has failed: RowFailed: in, row 7\n  'modelyard why score' says what to do\n"
    )
    assert "3 of 8 shards, 370 of 1,000 rows are committed and stay" in answer.out


def test_a_job_that_takes_longer_goes_on(project: Project) -> None:
    project.write("job.yaml", job())
    project.run("apply", "-f", "job.yaml")
    project.set_status(MODELJOBS, "score", **said("Running", "3 of 8 shards", **HALF))
    answer = project.run("apply", "-f", "job.yaml", "--wait", "--timeout", "0.5")
    assert answer.status == 3
    assert "ModelJob score is not Complete after 0.5 s: Running: 3 of 8 shards" in answer.err
    assert "it goes on" in answer.err


def test_the_final_object_is_printed_for_programs_also_of_a_job_that_failed(project: Project) -> None:
    project.write("job.yaml", job())
    controller = changing(project, said("RowFailed", "in, row 7", true="Failed", **HALF))
    answer = project.run("apply", "-f", "job.yaml", "--wait", "-o", "json")
    controller.join()
    assert answer.status == 1
    assert json.loads(answer.out)["status"]["rows"] == 370


def test_watching_prints_lines_where_there_is_no_terminal(project: Project) -> None:
    project.write("job.yaml", job(), model())
    others = follow_up(project, MODELS, "forest", lambda _: {"conditions": [condition("True", "Prepared")]})
    controller = changing(
        project,
        said("ModelNotReady", "Model forest: is being read"),
        said("Running", **HALF),
        said("Completed", true="Complete", **DONE),
    )
    answer = project.run("apply", "-f", "job.yaml", "--watch")
    controller.join()
    others.join()
    assert answer.status == 0, answer.err
    assert " modeljob/score  37%  370 of 1,000 rows\n" in answer.out
    assert "model/forest is Ready\n" in answer.out
    assert answer.out.endswith("modeljob/score is Complete: 1,000 rows in 41 s\n  results  out\n")


def test_a_job_that_is_deleted_ends_the_watching(project: Project) -> None:
    project.write("job.yaml", job())
    project.run("apply", "-f", "job.yaml")
    project.set_status(MODELJOBS, "score", **said("Running", **HALF))
    started = subprocess.Popen(
        [sys.executable, "-m", "modelyard", "apply", "-f", "job.yaml", "--watch"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        while "37%" not in (line := started.stdout.readline()):
            assert line
        assert project.run("delete", "modeljob", "score").out.endswith("modeljob/score deleted\n")
        _, told = started.communicate(timeout=20)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 1
    assert "ModelJob score is not there" in told


@pytest.mark.parametrize("option", ["--watch", "--wait"])
def test_ctrl_c_ends_the_view_and_not_the_job(project: Project, option: str) -> None:
    project.write("job.yaml", job())
    project.run("apply", "-f", "job.yaml")
    project.set_status(MODELJOBS, "score", **said("Running", **HALF))
    started = subprocess.Popen(
        [sys.executable, "-m", "modelyard", "apply", "-f", "job.yaml", option],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert started.stdout is not None
        while "37%" not in (line := started.stdout.readline()):
            assert line
        started.send_signal(signal.SIGINT)
        told, _ = started.communicate(timeout=20)
    finally:
        started.kill()
        started.wait()
    assert started.returncode == 130
    assert "modeljob/score goes on; stop it with 'modelyard suspend score' or 'modelyard delete modeljob score'" in told
    assert "Traceback" not in told


def test_a_terminal_shows_a_bar_that_stays(project: Project) -> None:
    project.write("job.yaml", job())
    controller = changing(project, said("Running", **HALF), said("Completed", true="Complete", **DONE))
    reader, writer = pty.openpty()
    started = subprocess.Popen(
        [sys.executable, "-m", "modelyard", "apply", "-f", "job.yaml", "--watch"],
        cwd=project.root,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    shown = b""
    try:
        while True:
            try:
                shown += os.read(reader, 65536)
            except OSError:  # Linux says so that the other end is closed
                break
        status = started.wait(timeout=20)
    finally:
        started.kill()
        started.wait()
        os.close(reader)
        controller.join()
    text = shown.decode()
    assert status == 0, text
    assert "100%" in text
    assert text.rstrip().endswith("results  out")


def test_wrong_options_together_are_refused(project: Project) -> None:
    project.write("job.yaml", job())
    for arguments, told in (
        (("--wait", "--watch"), "leave --wait out"),
        (("--watch", "-o", "json"), "use -o with --wait"),
        (("--watch", "--dry-run"), "a dry run changes nothing that --watch could wait for"),
    ):
        answer = project.run("apply", "-f", "job.yaml", *arguments)
        assert (answer.status, told in answer.err) == (2, True)


def test_jobs_are_suspended_and_resumed(project: Project) -> None:
    project.write("job.yaml", job())
    project.run("apply", "-f", "job.yaml")
    project.set_status(MODELJOBS, "score", **said("Running", **HALF))
    stopped = said("Suspended", "suspend is true", true="Suspended", generation=2, **HALF)
    controller = changing(project, stopped)
    answer = project.run("suspend", "score", "--timeout", "15")
    controller.join()
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[0].startswith("server https://")
    told = "modeljob/score is suspended; 3 of 8 shards, 370 of 1,000 rows are committed and stay"
    assert answer.out.splitlines()[1:] == [told]
    assert project.get(MODELJOBS, "score")["spec"]["suspend"] is True
    assert "modeljob/score is suspended already" in project.run("suspend", "modeljob/score").out
    assert "modeljob/score unchanged" in project.run("apply", "-f", "job.yaml").out
    assert "modelyard resume score" in project.run("why", "score").out
    answer = project.run("resume", "score", "--no-wait")
    assert answer.out.endswith("modeljob/score goes on\n")
    assert project.get(MODELJOBS, "score")["spec"]["suspend"] is False


def test_what_cannot_be_suspended_is_said(project: Project) -> None:
    service: Object = {"kind": "ModelService", "metadata": {"name": "digits"}, "spec": {"model": {"name": "forest"}}}
    project.write("all.yaml", job(**SCORE, suspend=True), {"apiVersion": "modelyard.dev/v1alpha1", **service})
    project.run("apply", "-f", "all.yaml")
    assert "only jobs and streams can be suspended" in project.run("suspend", "model/forest").err
    assert "spec.replicas: 0 stops it" in project.run("suspend", "digits").err
    assert "set spec.suspend: false in the manifest, too" in project.run("resume", "score", "--no-wait").err
    project.set_status(MODELJOBS, "score", **said("RowFailed", true="Failed"))
    answer = project.run("resume", "score")
    assert (answer.status, "is never run again" in answer.err) == (1, True)
    assert "has ended already (Failed)" in project.run("suspend", "score").err


def test_a_job_is_listed_described_and_explained(project: Project) -> None:
    project.write("job.yaml", job(), model())
    project.run("apply", "-f", "job.yaml")
    trained: Object = {
        "errorRows": 2,
        "deadLetters": "out/_run/1/errors",
        "metrics": [{"name": "loss", "value": "0.2"}],
    }
    project.set_status(MODELJOBS, "score", **said("Running", "3 of 8 shards", active=2, failed=1, **HALF, **trained))
    header, row = project.run("get", "modeljobs").out.splitlines()
    columns = ["NAME", "COMPLETE", "REASON", "PROGRESS", "ROWS", "ERRORS", "ACTIVE", "FAILED", "AGE"]
    assert header.split() == columns
    assert row.split()[:8] == ["score", "False", "Running", "37", "370", "2", "2", "1"]
    assert "modeljob/score" in project.run("get", "modelyard").out
    described = " ".join(project.run("describe", "mjob", "score").out.split())
    for fact in (
        "State: Running",
        "Progress: 37%",
        "Shards: 3 of 8 committed",
        "Rows: 370 of 1,000 scored, 2 could not be",
        "Runners: 2 active, 1 failure of 6 allowed",
        "Metrics: loss 0.2",
        "Results: out",
        "Dead letters: out/_run/1/errors",
        "Complete False Running",
    ):
        assert fact in described
    assert project.run("why", "score").out.startswith("ModelJob score is running: 37%, 370 of 1,000 rows")
    assert json.loads(project.run("why", "modeljob/score", "-o", "json").out)["healthy"] is True
    assert project.run("validate", "job.yaml").out == "2 objects are valid\n"
    project.write("bad.yaml", job(score={**SCORE["score"], "batchRow": 3}))
    assert "spec.score.batchRow: unknown field" in project.run("validate", "bad.yaml").err


def test_paths_of_a_job_are_relative_to_its_manifest(project: Project) -> None:
    project.write("team/job.yaml", job(run={"command": ["python", "x.py"], "workingDir": ".", "output": {"uri": "o"}}))
    project.run("apply", "-f", "team/job.yaml")
    spec = project.get(MODELJOBS, "score")["spec"]["run"]
    assert (spec["workingDir"], spec["output"]["uri"]) == ("team", "team/o")


def test_a_job_is_told_when_the_bytes_of_its_model_are_no_longer_those_that_score(project: Project) -> None:
    (project.root / "models").mkdir()
    artifact = project.root / "models" / "forest.onnx"
    artifact.write_bytes(b"one")
    project.write("all.yaml", model())
    project.write("job.yaml", job())
    project.run("apply", "-f", "all.yaml")
    project.set_status(MODELS, "forest", digest=digest(artifact))
    artifact.write_bytes(b"two")
    assert "'modelyard refresh forest'" in project.run("apply", "-f", "job.yaml").err
    project.set_status(MODELJOBS, "score", **said("Completed", true="Complete", **DONE))
    assert "refresh" not in project.run("apply", "-f", "job.yaml").err
