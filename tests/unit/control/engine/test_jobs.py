"""Jobs from what users declare to their end, through the real loop, reflectors, queue and planners."""

import itertools
from typing import Any

import pytest

from engine_jobs_testing import DONE, FOREST, TRAINED, JobWorld, works
from engine_testing import digest_of, virtual
from modelyard.control.ir import names
from modelyard.control.ir.actions import Run
from modelyard.control.ir.observed import MemberState
from modelyard.control.kube.resources import CONTROLLERREVISIONS, EVENTS, MODELJOBS, MODELS
from modelyard.control.plan import job
from modelyard.wire.report import Report, failure

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
        assert world.forgotten().count(old.name) == 1
        found = world.api.find(CONTROLLERREVISIONS, "score-job")
        assert recorded is not None
        assert found is not None
        assert found["metadata"]["uid"] != recorded["metadata"]["uid"]
        assert found["data"]["task"]["name"] == new.name


@virtual
async def test_a_job_fails_when_its_time_is_over() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(activeDeadlineSeconds=100)
        await world.passes(97)
        assert world.told("score")[0] == "False"
        assert world.told("score", "Failed")[0] == "False"
        await world.score(activeDeadlineSeconds=100, suspend=True)
        await world.ends_asked("score")
        await world.passes(1000)
        assert world.told("score", "Failed")[0] == "False"
        await world.score(activeDeadlineSeconds=100)
        await world.settle()
        await world.passes(97)
        assert world.told("score", "Failed")[0] == "False", "it counts from being resumed"
        await world.passes(4)
        assert world.told("score", "Failed")[:2] == ("True", "DeadlineExceeded")
        await world.ends_asked("score")
        assert world.job_tasks("score") == ()
        assert world.count("DeadlineExceeded") == 1


@virtual
async def test_a_job_whose_time_was_over_while_nobody_looked_is_not_started_again() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(activeDeadlineSeconds=100)
    await world.passes(200)
    async with world.running(fresh=True):
        await world.settle()
        assert world.told("score", "Failed")[:2] == ("True", "DeadlineExceeded")
        assert world.started() == []


@virtual
async def test_an_object_goes_when_its_time_after_the_end_is_over_and_not_before() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring("short", ttlSecondsAfterFinished=60)
        await world.score("stays")
        await world.settle()
        await world.passes(500)
        assert world.api.find(MODELJOBS, "short") is not None, "it has not ended"
        await world.ends("short")
        await world.ends("stays")
        await world.passes(50)
        assert world.api.find(MODELJOBS, "short") is not None
    async with world.running(fresh=True):
        await world.passes(15)
        assert world.api.find(MODELJOBS, "short") is None
        await world.passes(100_000)
        assert world.told("stays")[0] == "True"
        assert world.revisions() == ["stays-job"]


@virtual
async def test_only_the_object_whose_time_is_over_is_deleted() -> None:
    world = JobWorld()

    def make_anew(verb: str, path: str) -> None:
        """A user was faster."""
        if verb == "DELETE" and path.endswith("modeljobs/score") and not anew:
            anew.append(world.api.remove((MODELJOBS.plural, "default", "score")))
            body = {key: value for key, value in anew[0].items() if key != "status"}
            metadata = {"name": "score", "namespace": "default"}
            world.api._create((MODELJOBS.plural, "default", "score"), {**body, "metadata": metadata})

    anew: list[Any] = []
    async with world.running():
        await world.scoring(ttlSecondsAfterFinished=1)
        await world.ends("score")
        world.api.refuse = make_anew
        await world.passes(20)
        assert len(anew) == 1
        found = world.api.find(MODELJOBS, "score")
        assert found is not None
        assert found["metadata"]["uid"] != anew[0]["metadata"]["uid"]
        assert world.told("score")[0] == "False"
        assert len(world.runners("score")) == 1


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
    from_other = digest_of("models/other.onnx")
    prepared = {"digest": from_other, "format": "onnx", "sizeBytes": 9}
    return Report(
        prepare=__import__("msgspec").convert(prepared, __import__("modelyard.wire.report").wire.report.PrepareReport)
    )


@virtual
async def test_a_defect_leaves_the_runners_alone_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    world = JobWorld()

    def desire(*_: Any) -> Any:
        raise KeyError("a defect")

    async with world.running():
        await world.scoring()
        await world.score("over")
        await world.settle()
        await world.ends("over")
        before = world.status("over")
        with monkeypatch.context() as patched:
            patched.setattr(job, "desire", desire)
            for name in ("score", "over"):
                await world.score(name, parallelism=2)
            await world.passes(100)
            assert len(world.runners("score")) == 1
            status, reason, message = world.told("score")
            assert (status, reason) == ("False", "InternalError")
            assert "KeyError('a defect')" in message
            assert world.status("over") == before, "a result stays what it is"
        await world.passes(70)
        assert len(world.runners("score")) == 2
        await world.ends("score")
        assert world.told("score")[0] == "True"
        assert world.told("over") == ("True", "Completed", "80 rows are committed")
        assert len(world.started()) == 2


@virtual
async def test_an_object_past_the_schema_changes_nothing_of_what_is_over() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring()
        found = world.api.find(MODELJOBS, "score")
        assert found is not None
        world.api.write_past_the_schema(MODELJOBS, "score", spec={"score": 1})
        await world.settle()
        assert world.told("score")[:2] == ("False", "Invalid")
        assert len(world.runners("score")) == 1
        world.api.write_past_the_schema(MODELJOBS, "score", spec=found["spec"])
        await world.settle()
        await world.ends("score")
        before = world.status("score")
        world.api.write_past_the_schema(MODELJOBS, "score", spec={"score": 1})
        await world.settle()
        assert world.status("score") == before
        world.api.write_past_the_schema(MODELJOBS, "score", spec=found["spec"])
        await world.passes(10)
        assert world.told("score")[0] == "True"
        assert len(world.started()) == 1


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
        assert told == {"Starting": 2, "Running": 1, "Crashed": 1, "Completed": 1}
