"""Programs run to their end: what they are told, what becomes of what they leave, and of their failures."""

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil

from jobs_testing import API, runners, state, status
from yard_testing import Yard, wait_until

_numbers = itertools.count()


def program(yard: Yard, text: str, **run: Any) -> dict[str, Any]:
    """A job that runs a Python program; spec of the job by `job=`."""
    name = f"run-{next(_numbers)}"
    (yard.folder / f"{name}.py").write_text(text)
    spec = {"run": {"command": ["python", f"{name}.py"], **run}, **run.pop("job", {})}
    spec["run"].pop("job", None)
    return {"apiVersion": API, "kind": "ModelJob", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def ran(yard: Yard, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    name = body["metadata"]["name"]
    yard.apply(body, wait=False)
    wait_until(lambda: "True" in state(yard, name)[:2], f"{name} ends", 60)
    return name, status(yard, name)


def message(found: dict[str, Any]) -> str:
    return next(str(each["message"]) for each in found["conditions"] if each["type"] == "Complete")


def test_what_a_program_leaves_is_committed_once_with_what_it_told(yard: Yard) -> None:
    text = """
import json, os, pathlib
out = pathlib.Path(os.environ["OUTPUT_DIR"])
(out / "deep").mkdir()
(out / "deep" / "a.txt").write_text("a")
(out / "b.txt").write_text(os.getcwd())
told = {"progressPercentage": 50, "metrics": {"loss": 0.25, "bad": "x"}}
pathlib.Path(os.environ["PROGRESS_FILE"]).write_text("noise\\n" + json.dumps(told) + "\\n")
assert os.environ["RANK"] == "0" and os.environ["WORLD_SIZE"] == "1"
assert not [name for name in os.environ if name.startswith("MODELYARD_")], os.environ
"""
    (yard.folder / "inner").mkdir(exist_ok=True)
    body = program(yard, text, output={"uri": "kept/plain"}, workingDir="inner")
    body["spec"]["run"]["command"][1] = f"../{body['metadata']['name']}.py"
    name, found = ran(yard, body)
    assert state(yard, name) == ("True", "False", "Completed"), found
    folder = yard.folder / "kept/plain"
    assert (folder / "deep/a.txt").read_text() == "a"
    assert (folder / "b.txt").read_text() == str(yard.folder / "inner")
    assert (folder / "_SUCCESS").exists()
    assert found["metrics"] == [{"name": "loss", "value": "0.25"}]
    assert not list((folder / "_run/1/files").rglob("*.txt"))
    again, found = ran(yard, program(yard, text, output={"uri": "kept/plain"}))
    assert state(yard, again)[2] == "OutputNotEmpty"
    over, _ = ran(
        yard,
        program(
            yard,
            'import os; open(os.environ["OUTPUT_DIR"] + "/c.txt", "w")',
            output={"uri": "kept/plain", "mode": "overwrite"},
        ),
    )
    assert state(yard, over)[0] == "True"
    assert sorted(each.name for each in folder.rglob("*.txt")) == ["c.txt"]


def test_a_program_that_fails_is_run_again_and_its_last_lines_are_told(yard: Yard) -> None:
    text = "import sys; print('half'); sys.exit('no GPU here')"
    name, found = ran(yard, program(yard, text, job={"backoffLimit": 1}))
    assert state(yard, name) == ("False", "True", "BackoffLimitExceeded")
    assert message(found).startswith(
        "2 runners failed, backoffLimit is 1; the last: ProgramFailed: python ended with exit status 1"
    )
    assert "no GPU here" in message(found)
    assert found["failed"] == 2
    assert "no GPU here" in yard.cli("logs", name)


def test_what_can_never_run_says_which_field_is_wrong(yard: Yard) -> None:
    def refused(**run: Any) -> tuple[str, str]:
        name, found = ran(yard, program(yard, "", **run))
        return state(yard, name)[2], message(found)

    reason, told = refused(command=["no-such-program"])
    assert reason == "EnvironmentMissing"
    assert "spec.run.command: there is no program 'no-such-program'" in told
    reason, told = refused(workingDir="nowhere")
    assert (reason, "spec.run.workingDir" in told) == ("Invalid", True)
    reason, told = refused(environment={"python": "venv/bin/python"})
    assert (reason, "spec.run.environment.python" in told) == ("EnvironmentMissing", True)
    for field in ("image", "requirements", "lock"):
        reason, told = refused(environment={field: "x"})
        assert (reason, f"spec.run.environment.{field}" in told) == ("Unsupported", True)
    reason, told = refused(output={"uri": "kept/none"}, outputModel={"name": "never", "path": "model"})
    assert (reason, "left nothing at model in OUTPUT_DIR" in told) == ("OutputMissing", True)


def test_a_program_that_failed_is_mended_and_run_again_as_it_is_told(yard: Yard) -> None:
    body = program(yard, "raise SystemExit('a slip')", output={"uri": "kept/mended"}, job={"backoffLimit": 0})
    name, _ = ran(yard, body)
    assert state(yard, name)[2] == "BackoffLimitExceeded"
    assert "with output.mode: overwrite, where it had begun a run at its output" in yard.cli("why", name)
    yard.cli("delete", "modeljob", name)
    (yard.folder / f"{name}.py").write_text("import os; open(os.environ['OUTPUT_DIR'] + '/a.txt', 'w')")
    body["spec"]["run"]["output"]["mode"] = "overwrite"
    ran(yard, body)
    assert state(yard, name)[0] == "True"
    assert [each.name for each in (yard.folder / "kept/mended").glob("*.txt")] == ["a.txt"]


def test_another_interpreter_is_the_python_of_the_program(yard: Yard) -> None:
    folder = yard.folder / "own" / "bin"
    folder.mkdir(parents=True)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nOWN=1 exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    name, found = ran(
        yard, program(yard, "import os; assert os.environ['OWN']", environment={"python": "own/bin/python"})
    )
    assert state(yard, name)[0] == "True", found


def test_an_output_model_is_made_once_with_its_metrics_and_never_replaces_one(yard: Yard) -> None:
    text = """
import json, os, pathlib, shutil
model = pathlib.Path(os.environ["OUTPUT_DIR"], "model")
model.mkdir()
shutil.copy("pace", model / "pace")
one = {"datatype": "FP64", "shape": [-1]}
(model / "model.json").write_text(json.dumps({"inputs": [{"name": "x", **one}], "outputs": [{"name": "y", **one}]}))
pathlib.Path(os.environ["PROGRESS_FILE"]).write_text(json.dumps({"metrics": {"accuracy": 0.9}}))
"""
    made = {"name": "made", "path": "model", "format": "slow"}
    name, found = ran(yard, program(yard, text, output={"uri": "kept/model"}, outputModel=made))
    assert state(yard, name)[0] == "True", found
    assert found["outputModel"] == "made"
    model = yard.get("model", "made")
    assert model["spec"]["uri"] == "kept/model/model"
    assert model["spec"]["digest"] == found["digest"]
    assert json.loads(model["metadata"]["annotations"]["modelyard.dev/metrics"]) == {"accuracy": 0.9}
    described = json.loads((yard.folder / "kept/model/model/model.json").read_text())
    assert described["metrics"] == {"accuracy": 0.9}
    assert described["provenance"]["job"] == f"default/{name}"
    second, found = ran(yard, program(yard, text, output={"uri": "kept/model2"}, outputModel=made))
    assert state(yard, second)[2] == "OutputModelExists"
    assert not (yard.folder / "kept/model2").exists()


def test_nodes_run_together_and_are_replaced_together(yard: Yard) -> None:
    text = """
import os, pathlib, socket, sys, time
rank, out = int(os.environ["RANK"]), pathlib.Path(os.environ["OUTPUT_DIR"])
here = pathlib.Path("gang"); here.mkdir(exist_ok=True)
(here / f"{os.environ['TORCHELASTIC_RESTART_COUNT']}-{rank}").write_text(os.environ["MASTER_PORT"])
if rank == 0:
    server = socket.create_server((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
    for _ in range(int(os.environ["WORLD_SIZE"]) - 1):
        server.accept()
else:
    for _ in range(200):
        try:
            socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))).close()
            break
        except OSError:
            time.sleep(0.05)
if rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    while not (here / "0-2").exists():
        time.sleep(0.05)
    sys.exit(7)
if rank == 2:
    time.sleep(1)
(out / f"rank-{rank}.txt").write_text("x")
"""
    name, found = ran(yard, program(yard, text, nodes=3, output={"uri": "kept/gang"}))
    assert state(yard, name)[0] == "True", found
    assert found["failed"] == 1
    started = sorted(each.name for each in (yard.folder / "gang").iterdir())
    assert started == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert [each.name for each in (yard.folder / "kept/gang").glob("*.txt")] == ["rank-0.txt"]


def test_a_program_that_is_interrupted_can_save_and_go_on(yard: Yard) -> None:
    text = """
import os, pathlib, signal, sys, time
place = pathlib.Path(os.environ["CHECKPOINT_URI"].removeprefix("file://"))
if os.environ.get("RESUME"):
    print("resumed at", (place / "step").read_text())
    sys.exit(0)
def save(*_):
    place.mkdir(parents=True, exist_ok=True)
    (place / "step").write_text("41")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("started", flush=True)
time.sleep(60)
"""
    body = program(yard, text, checkpoint={"uri": "kept/checkpoint"})
    name = body["metadata"]["name"]
    yard.apply(body, wait=False)
    wait_until(lambda: "started" in yard.cli("logs", name, check=False), "the program runs")
    yard.cli("suspend", name)
    wait_until(lambda: (yard.folder / "kept/checkpoint/step").exists() and not runners(yard), "it has saved")
    yard.cli("resume", name)
    wait_until(lambda: state(yard, name)[0] == "True", "it goes on")
    assert "resumed at 41" in yard.cli("logs", name)
    assert status(yard, name)["failed"] == 0


def test_a_runner_that_is_killed_takes_its_program_along_and_starts_over(yard: Yard) -> None:
    text = """
import os, pathlib, time
out = pathlib.Path(os.environ["OUTPUT_DIR"])
(out / "a.txt").write_text(str(os.getpid()))
marks = pathlib.Path("killed"); marks.mkdir(exist_ok=True)
(marks / str(os.getpid())).write_text("")
if len(list(marks.iterdir())) == 1:
    time.sleep(60)
"""
    body = program(yard, text, output={"uri": "kept/killed"})
    name = body["metadata"]["name"]
    yard.apply(body, wait=False)
    marks = yard.folder / "killed"
    wait_until(lambda: marks.exists() and list(marks.iterdir()), "the program runs")
    (first,) = (int(each.name) for each in marks.iterdir())
    os.kill(runners(yard)[0].pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(first), "the program ends with its runner")
    wait_until(lambda: state(yard, name)[0] == "True", "it starts over")
    (second,) = (int(each.name) for each in marks.iterdir() if each.name != str(first))
    assert (yard.folder / "kept/killed/a.txt").read_text() == str(second)
    assert status(yard, name)["failed"] == 1


def test_progress_is_seen_while_the_program_runs(yard: Yard) -> None:
    text = """
import json, os, pathlib, time
told = {"progressPercentage": 40, "estimatedRemainingSeconds": 90}
pathlib.Path(os.environ["PROGRESS_FILE"]).write_text(json.dumps(told))
while not pathlib.Path("go").exists():
    time.sleep(0.05)
"""
    body = program(yard, text)
    name = body["metadata"]["name"]
    yard.apply(body, wait=False)
    wait_until(lambda: status(yard, name).get("progressPercentage") == 40, "progress")
    assert message(status(yard, name)) == "40%, about 1m30s left"
    (yard.folder / "go").write_text("")
    wait_until(lambda: state(yard, name)[0] == "True", "it ends")
    assert status(yard, name)["progressPercentage"] == 100


def test_a_finished_job_goes_when_its_time_is_over(yard: Yard) -> None:
    body = program(yard, "open('ended', 'w')", job={"ttlSecondsAfterFinished": 1})
    name = body["metadata"]["name"]
    yard.apply(body, wait=False)
    wait_until((yard.folder / "ended").exists, "it ends")
    wait_until(lambda: "there is no ModelJob" in yard.cli("get", "modeljob", name, check=False), "it is gone")


def test_folders_of_ended_programs_are_removed(yard: Yard) -> None:
    ran(yard, program(yard, "import os; open(os.environ['TMPDIR'] + '/left', 'w').write('x' * 1000)"))
    wait_until(lambda: not list((yard.data / "work").iterdir()), "no folder is left")
    assert Path(yard.data / "logs").exists()
