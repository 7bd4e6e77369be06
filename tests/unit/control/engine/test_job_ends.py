"""When a job is over, and that nothing brings it back: time, defects, lost writes, somebody else's Model."""

from typing import Any

import pytest

from engine_jobs_testing import DIGEST, MADE, TRAINED, JobWorld
from engine_testing import virtual
from modelyard.base.errors import RetryLater
from modelyard.control.ir import names
from modelyard.control.ir.observed import MemberState
from modelyard.control.kube.client import ApiError
from modelyard.control.kube.resources import MODELJOBS, MODELS
from modelyard.control.plan import job

STRANGER = {"uri": "models/stranger.onnx"}
MODEL = (MODELS.plural, "default", "digits-v2")
REFUSALS = [
    RetryLater("away"),
    ApiError(409, "Conflict", "changed"),
    ApiError(500, "", "etcd"),
    ApiError(403, "", "no"),
]


class Refusing:
    """Refuses the first requests of a kind."""

    def __init__(self, world: JobWorld, verb: str, what: str, times: int, refusal: Exception) -> None:
        self.left = times
        self._asked = (verb, what)
        self._refusal = refusal
        world.api.refuse = self.refuse

    def refuse(self, verb: str, path: str) -> None:
        if self.left and verb == self._asked[0] and path.endswith(self._asked[1]):
            self.left -= 1
            raise self._refusal


async def trained(world: JobWorld) -> None:
    """The program has ended well."""
    await world.train()
    await world.settle()
    await world.ends("train", TRAINED)


def creations(world: JobWorld) -> int:
    return world.api.writes.count(("create", "models", "digits-v2"))


@virtual
async def test_the_output_becomes_a_model_that_outlives_the_job() -> None:
    world = JobWorld()
    async with world.running():
        await trained(world)
        assert world.told("train") == ("True", "Completed", "done; Model digits-v2")
        model = world.api.find(MODELS, "digits-v2")
        owner = world.api.find(MODELJOBS, "train")
        assert model is not None
        assert owner is not None
        assert model["spec"] == {"uri": "out/model", "digest": DIGEST, "format": "onnx"}
        assert model["metadata"]["annotations"] == {
            names.ANNOTATION_JOB: "train",
            names.ANNOTATION_JOB_UID: owner["metadata"]["uid"],
            names.ANNOTATION_METRICS: '{"accuracy":0.975}',
        }
        assert world.status("train")["outputModel"] == "digits-v2"
        assert world.status("train")["metrics"] == [{"name": "accuracy", "value": "0.975"}]
        assert (world.count("ModelCreated"), world.count("Completed")) == (1, 1)
        await world.delete("ModelJob", "train")
        await world.settle()
        assert world.api.find(MODELS, "digits-v2") is not None
        await world.train()
        await world.settle()
        assert world.told("train", "Failed")[:2] == ("True", "OutputModelExists")
        assert len(world.started()) == 1, "another job of the same name replaces nothing"


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
@pytest.mark.parametrize(("verb", "what"), [("POST", "/models"), ("PUT", "/modeljobs/train/status")])
@virtual
async def test_the_model_is_made_once_whatever_is_refused(verb: str, what: str, refusal: Exception) -> None:
    world = JobWorld()
    async with world.running():
        await world.train()
        await world.settle()
        refusing = Refusing(world, verb, what, 3, refusal)
        world.driver.end(world.runners("train")[0], report=TRAINED)
        for _ in range(200):
            await world.passes(0.005)
            first = creations(world) or world.told("train")[0] == "False"
            assert first, "first the Model, then its name in the status"
        await world.passes(60)
        assert refusing.left == 0
        assert world.told("train")[:2] == ("True", "Completed")
        assert creations(world) == 1
        assert world.count("ModelCreated") == 1
        assert len(world.started()) == 1


@pytest.mark.parametrize(("verb", "what"), [("POST", "/models"), ("PUT", "/modeljobs/train/status")])
@virtual
async def test_the_model_is_made_once_although_answers_are_lost(
    monkeypatch: pytest.MonkeyPatch, verb: str, what: str
) -> None:
    world = JobWorld()
    right = world.api.request
    lost: list[str] = []

    async def request(method: str, path: str, **more: Any) -> Any:
        answer = await right(method, path, **more)
        if method == verb and path.endswith(what) and losing and len(lost) < 2:
            lost.append(path)
            raise RetryLater("the connection was lost")
        return answer

    losing = False
    monkeypatch.setattr(world.api, "request", request)
    async with world.running():
        await world.train()
        await world.settle()
        losing = True
        await world.ends("train", TRAINED)
        await world.passes(30)
        assert lost
        assert world.told("train")[:2] == ("True", "Completed")
        assert creations(world) == 1
        assert world.job_tasks("train") == ()
    async with world.running(fresh=True):
        await world.passes(30)
        assert world.started() == []
        assert creations(world) == 1


@virtual
async def test_a_server_that_dies_before_the_result_is_stored_makes_no_second_model() -> None:
    world = JobWorld()
    async with world.running():
        await world.train()
        await world.settle()
        Refusing(world, "PUT", "/status", 10**6, RetryLater("away"))
        world.driver.end(world.runners("train")[0], report=TRAINED)
        await world.passes(5)
        assert creations(world) == 1
    world.api.refuse = lambda _verb, _path: None
    async with world.running(fresh=True):
        await world.settle()
        assert len(world.runners("train")) == 1, "it finds out for itself that all is done"
        await world.ends("train", TRAINED)
        assert world.told("train")[:2] == ("True", "Completed")
        assert creations(world) == 1


@virtual
async def test_a_model_of_somebody_else_is_never_replaced() -> None:
    world = JobWorld()
    async with world.running():
        await world.apply("Model", "digits-v2", STRANGER)
        await world.train()
        await world.settle()
        assert world.told("train", "Failed")[:2] == ("True", "OutputModelExists")
        assert world.started() == []
        found = world.api.find(MODELS, "digits-v2")
        assert found is not None
        assert found["spec"] == STRANGER
        assert world.count("OutputModelExists") == 1


@virtual
async def test_a_model_of_somebody_else_that_appears_ends_the_job() -> None:
    world = JobWorld()
    async with world.running():
        await world.train()
        await world.settle()
        assert len(world.runners("train")) == 1
        await world.apply("Model", "digits-v2", STRANGER)
        await world.ends_asked("train")
        assert world.told("train", "Failed")[:2] == ("True", "OutputModelExists")
        assert world.job_tasks("train") == ()
        await world.delete("Model", "digits-v2")
        await world.passes(100)
        assert world.told("train", "Failed")[:2] == ("True", "OutputModelExists")
        assert len(world.started()) == 1


@virtual
async def test_a_model_of_somebody_else_that_comes_first_by_a_moment_is_told() -> None:
    world = JobWorld()

    def come_first(verb: str, path: str) -> None:
        if verb == "POST" and path.endswith("/models") and world.api.find(MODELS, "digits-v2") is None:
            body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "Model", "spec": STRANGER}
            world.api._create(MODEL, {**body, "metadata": {"name": "digits-v2", "namespace": "default"}})

    async with world.running():
        await world.train()
        await world.settle()
        world.api.refuse = come_first
        await world.ends("train", TRAINED)
        await world.passes(10)
        assert world.told("train", "Failed")[:2] == ("True", "OutputModelExists")
        assert world.told("train")[0] == "False"
        found = world.api.find(MODELS, "digits-v2")
        assert found is not None
        assert found["spec"] == STRANGER
        assert world.count("ModelCreated") == 0
        assert MADE["name"] in world.told("train")[2]


@virtual
async def test_what_has_failed_too_often_is_not_run_again_although_its_result_cannot_be_stored() -> None:
    world = JobWorld()
    async with world.running():
        await world.scoring(backoffLimit=0)
        refusing = Refusing(world, "PUT", "/modeljobs/score/status", 4, RetryLater("away"))
        await world.dies(world.runners("score")[0])
        await world.passes(60)
        assert refusing.left == 0
        assert world.told("score", "Failed")[:2] == ("True", "BackoffLimitExceeded")
        await world.ends_asked("score")
        assert world.job_tasks("score") == ()
        assert len(world.started()) == 1
        assert world.runners("score", MemberState.RUNNING) == []


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
        await world.passes(10_000)
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
        world.api.refuse = make_anew
        await world.scoring(ttlSecondsAfterFinished=1)
        await world.ends("score")
        await world.passes(20)
        assert len(anew) == 1
        found = world.api.find(MODELJOBS, "score")
        assert found is not None
        assert found["metadata"]["uid"] != anew[0]["metadata"]["uid"]
        assert world.told("score")[0] == "False"
        assert len(world.runners("score")) == 1


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
