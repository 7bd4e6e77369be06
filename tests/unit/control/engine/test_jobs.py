"""Jobs from what users declare to their end, through the real loop, reflectors, queue and planners."""

import itertools
from typing import Any

import pytest

from engine_jobs_testing import DONE, FOREST, JobWorld, works
from engine_testing import digest_of, virtual
from modelyard.control.ir import names
from modelyard.control.ir.actions import Run
from modelyard.control.ir.observed import MemberState
from modelyard.control.kube.resources import CONTROLLERREVISIONS, EVENTS, MODELJOBS, MODELS
from modelyard.wire.report import PrepareReport, Report

ENDING, RUNNING = MemberState.ENDING, MemberState.RUNNING


@pytest.mark.parametrize("order", list(itertools.permutations(["Model", "Runtime", "ModelJob"])), ids=str)
@virtual
async def test_a_job_runs_to_its_end_whatever_comes_first(order: tuple[str, ...]) -> None:
    world = JobWorld()
    score = {"model": {"name": "forest"}, "runtime": "mine", "input": {"uri": "in"}, "output": {"uri": "out"}}
    specs: dict[str, tuple[str, Any]] = {
        "Model": ("forest", {"uri": FOREST}),
        "Runtime": ("mine", {"formats": [{"name": "onnx"}], "process": {"command": ["mine"]}}),
        "ModelJob": ("score", {"score": score}),
    }
    async with world.running():
        for kind in order:
            assert world.started() == []
            await world.apply(kind, *specs[kind])
            await world.prepares()
        assert world.told("score")[:2] == ("False", "Starting")
        (runner,) = world.runners("score")
        world.driver.report(runner, works(3))
        await world.settle()
        assert world.told("score") == ("False", "Running", "3 of 8 shards, 30 of 80 rows")
        status = world.status("score")
        assert (status["active"], status["progressPercentage"]) == (1, 37)
        await world.ends("score")
        assert world.told("score") == ("True", "Completed", "80 rows are committed")
        assert world.told("score", "Failed")[0] == "False"
        assert world.job_tasks("score") == (), "nothing is left of what is over"
        assert world.status("score")["digest"] == digest_of(FOREST)
        (started,) = [each.task for each in world.driver.applied if isinstance(each, Run) and each.task.work.score]
        assert started.work.score is not None
        assert started.work.score.model.command == ("mine",)
        version = world.api.version
        await world.passes(3600)
        assert world.api.version == version


@virtual
async def test_what_a_job_waits_for_is_told_with_its_field() -> None:
    world = JobWorld()
    async with world.running():
        score = {"model": {"name": "forest"}, "runtime": "mine", "input": {"uri": "in"}, "output": {"uri": "out"}}
        await world.apply("ModelJob", "score", {"score": score})
        await world.settle()
        status, reason, message = world.told("score")
        assert (status, reason) == ("False", "ModelNotFound")
        assert message.startswith("spec.score.model.name: there is no Model forest")
        await world.apply("Model", "forest", {"uri": FOREST})
        await world.prepares()
        assert world.told("score")[1] == "RuntimeNotFound"
        assert world.told("score")[2].startswith("spec.score.runtime: there is no Runtime mine")
        assert world.status("score")["active"] == 0


@virtual
async def test_an_inline_artifact_becomes_a_model_of_the_job() -> None:
    world = JobWorld()
    async with world.running():
        await world.score(model={"uri": FOREST})
        await world.settle()
        (model,) = world.api.all(MODELS)
        owner = world.api.find(MODELJOBS, "score")
        assert owner is not None
        assert model["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]
        assert world.told("score")[:2] == ("False", "ModelNotReady")
        await world.prepares()
        await world.ends("score")
        assert world.told("score")[0] == "True"
        await world.delete("ModelJob", "score")
        await world.settle()
        assert world.api.all(MODELS) == []


@virtual
async def test_runners_that_die_are_counted_until_it_is_too_often() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(parallelism=2, backoffLimit=2)
        for died in (1, 2):
            await world.dies(world.runners("score")[0], "was ended by SIGKILL")
            assert world.status("score")["failed"] == died
            await world.passes(10)
            assert len(world.runners("score")) == 2
        assert world.count("Crashed") == 2, "each is told once"
        await world.dies(world.runners("score")[0], "was ended by SIGKILL")
        status, reason, message = world.told("score", "Failed")
        assert (status, reason) == ("True", "BackoffLimitExceeded")
        assert message == "3 runners failed, backoffLimit is 2; the last: Crashed: was ended by SIGKILL"
        assert world.told("score")[0] == "False"
        assert world.runners("score", RUNNING) == []
        await world.ends_asked("score")
        assert world.job_tasks("score") == ()
        await world.passes(3600)
        assert (world.status("score")["failed"], world.status("score")["active"]) == (3, 0)
        assert len(world.started()) == 1
        assert world.count("BackoffLimitExceeded") == 1


@virtual
async def test_a_failure_that_no_time_heals_ends_the_job() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(parallelism=3)
        world.driver.report(world.runners("score")[1], works(2))
        await world.settle()
        await world.fails_for_good("score")
        assert world.told("score", "Failed") == ("True", "SchemaMismatch", "the input has no column X")
        assert world.status("score")["shards"] == {"planned": 8, "committed": 2}
        assert world.job_tasks("score") == ()
        assert world.count("SchemaMismatch") == 1


@virtual
async def test_suspending_ends_all_runners_and_resuming_goes_on_with_the_same_task() -> None:
    world = JobWorld()
    async with world.running():
        first = await world.scoring(parallelism=2)
        world.driver.report(world.runners("score")[0], works(3, rows_per_second=5.0))
        await world.dies(world.runners("score")[1])
        assert world.status("score")["rowsPerSecond"] == 5
        await world.score(parallelism=2, suspend=True)
        await world.ends_asked("score")
        assert world.told("score", "Suspended")[0] == "True"
        assert world.told("score")[:2] == ("False", "Suspended")
        assert world.job_tasks("score") == ()
        status = world.status("score")
        assert (status["shards"]["committed"], status["failed"], status["active"]) == (3, 1, 0)
        assert "rowsPerSecond" not in status
        assert "startTime" not in status
        await world.passes(600)
        assert world.job_tasks("score") == ()
        await world.score(parallelism=2)
        await world.settle()
        assert world.told("score", "Suspended")[0] == "False"
        assert world.task("score").name == first.name
        assert len(world.runners("score")) == 2
        assert world.status("score")["failed"] == 1
        await world.ends("score")
        assert world.told("score")[0] == "True"
        assert world.revisions() == ["score-job"]
        assert world.count("Suspended") == 1


@virtual
async def test_a_job_that_is_resumed_while_its_runners_end_starts_them_again() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring()
        await world.score(suspend=True)
        await world.settle()
        assert len(world.runners("score", ENDING)) == 1
        await world.score(parallelism=3)
        await world.settle()
        assert world.runners("score") == []
        await world.ends_asked("score")
        await world.passes(10)
        assert len(world.runners("score")) == 3
        assert world.status("score")["failed"] == 0


@virtual
async def test_work_that_was_done_before_it_was_suspended_counts() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring()
        world.driver.end(world.runners("score")[0], report=DONE)
        await world.score(suspend=True)
        await world.settle()
        assert world.told("score")[:2] == ("True", "Completed")


@virtual
async def test_the_number_of_runners_changes_while_they_work() -> None:
    world = JobWorld()
    async with world.running():
        task = await world.scoring(parallelism=2)
        await world.score(parallelism=4)
        await world.settle()
        assert len(world.runners("score")) == 4
        await world.score(parallelism=1)
        await world.ends_asked("score")
        assert world.runners("score") == [f"{task.name}-0"]
        assert world.status("score")["failed"] == 0
        assert len(world.started()) == 1


@virtual
async def test_a_job_that_is_deleted_leaves_nothing() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(parallelism=2)
        await world.delete("ModelJob", "score")
        await world.settle()
        assert world.runners("score", RUNNING) == []
        await world.ends_asked("score")
        assert world.job_tasks("score") == ()
        assert world.api.all(CONTROLLERREVISIONS) == []
        assert world.api.find(MODELS, "forest") is not None


@virtual
async def test_a_job_that_is_made_anew_under_its_name_is_another_one() -> None:
    world = JobWorld()
    async with world.running():
        old = await world.scoring()
        world.driver.report(world.runners("score")[0], works(5))
        await world.settle()
        recorded = world.api.find(CONTROLLERREVISIONS, "score-job")
        await world.delete("ModelJob", "score")
        await world.score(parallelism=2)
        await world.settle()
        assert "shards" not in world.status("score")
        await world.ends_asked("score")
        await world.passes(10)
        new = world.task("score")
        assert new.name != old.name
        assert len(new.members) == 2
        assert old.name in world.forgotten()
        assert new.name not in world.forgotten()
        found = world.api.find(CONTROLLERREVISIONS, "score-job")
        assert recorded is not None
        assert found is not None
        assert found["metadata"]["uid"] != recorded["metadata"]["uid"]
        assert found["data"]["task"]["name"] == new.name


@virtual
async def test_a_restarted_server_goes_on_with_the_recorded_task() -> None:
    world = JobWorld()
    async with world.running():
        first = await world.scoring(parallelism=2, backoffLimit=3)
        world.driver.report(world.runners("score")[0], works(5))
        await world.dies(world.runners("score")[1])
        await world.dies(world.runners("score")[0])
        assert world.status("score")["failed"] == 2
        recorded = world.driver._tasks[first.name].task
    await world.apply("Model", "forest", {"uri": FOREST}, annotations={names.ANNOTATION_REFRESH: "1"})
    async with world.running(fresh=True):
        await world.settle()
        (prepare,) = [each for each in world.tasks() if "prepare" in each]
        world.driver._tasks[prepare].conclude(_changed())
        await world.settle()
        assert world.driver._tasks[first.name].task == recorded, "whatever became of the Model"
        assert world.told("score")[:2] == ("False", "Starting")
        status = world.status("score")
        assert (status["failed"], status["shards"]["committed"]) == (2, 5)
        world.driver.report(world.runners("score")[0], works(4))
        await world.settle()
        assert world.status("score")["shards"]["committed"] == 5, "one that knows less"
        await world.dies(world.runners("score")[0])
        assert world.status("score")["failed"] == 3
        await world.passes(10)
    async with world.running(fresh=True):
        await world.settle()
        await world.ends("score")
        assert world.told("score")[0] == "True"
        assert world.status("score")["failed"] == 3
        assert world.status("score")["digest"] == digest_of(FOREST)
    assert world.revisions() == ["score-job"]
    assert [each for each in world.api.writes if each[:2] == ("create", "controllerrevisions")] == [
        ("create", "controllerrevisions", "score-job")
    ]


def _changed() -> Report:
    return Report(prepare=PrepareReport(digest=digest_of("models/other.onnx"), format="onnx", size_bytes=9))


@virtual
async def test_what_happens_is_told_once() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(parallelism=2)
        await world.dies(world.runners("score")[0], "was ended by SIGKILL")
        for committed in range(6):
            world.driver.report(world.runners("score")[0], works(committed))
            await world.settle()
        await world.ends("score")
        told = {
            each["reason"]: each["count"] for each in world.api.all(EVENTS) if each["involvedObject"]["name"] == "score"
        }
        assert told.pop("ModelNotReady", 1) == 1
        assert told == {"Starting": 1, "Running": 1, "Crashed": 1, "Completed": 1}
