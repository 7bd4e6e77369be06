"""The whole loop under random histories: users, processes, a slow gateway, an API server that is away, restarts."""

from contextlib import AsyncExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_jobs_testing import DONE, JobWorld, works
from engine_testing import digest_of, virtual
from modelyard.base.errors import RetryLater
from modelyard.control.ir.observed import MemberState, ReplicaState
from modelyard.control.kube.resources import CONTROLLERREVISIONS, MODELJOBS, MODELS, MODELSERVICES
from modelyard.wire.report import failure

NAMES = ("digits", "iris")
URIS = ("models/a.onnx", "models/b.onnx", "models/c.onnx")
READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING
index = st.integers(0, 5)
names, uris = st.sampled_from(NAMES), st.sampled_from(URIS)

EVENTS = st.one_of(
    st.tuples(st.just("serve"), names, uris, st.integers(0, 3)),
    st.tuples(st.just("serve"), names, uris, st.integers(1, 2)),
    st.tuples(st.just("share"), names, st.just("shared"), st.integers(1, 2)),
    st.tuples(st.just("model"), uris),
    st.tuples(st.just("unmodel")),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("score"), st.integers(1, 3), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("score"), st.integers(1, 2), st.just(4), st.just(False)),
    st.tuples(st.just("unscore")),
    st.tuples(st.just("runner"), index, st.sampled_from(["works", "works", "dies", "dies", "leaves", "done", "never"])),
    st.tuples(st.just("runner"), index, st.sampled_from(["works", "dies", "leaves"])),
    st.tuples(st.just("finish"), index, st.sampled_from(["", "", "", "again", "never"])),
    st.tuples(st.just("ready"), index),
    st.tuples(st.just("ready"), index),
    st.tuples(st.just("crash"), index),
    st.tuples(st.just("drained"), index),
    st.tuples(st.just("acknowledge")),
    st.tuples(st.just("away"), st.integers(1, 6)),
    st.tuples(st.just("restart"), st.booleans()),
)
PAUSES = st.sampled_from([0.0, 0.002, 0.3, 5.0, 70.0])


class Story:
    """A world, and what users asked for last."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.world = JobWorld(automatic_gateway=False)
        self.wanted: dict[str, str] = {}
        self.results: dict[str, Any] = {}
        """Statuses of jobs that are over, by uid."""
        self.shared = ""
        self._stack = stack
        self._refusals = 0
        self.world.api.refuse = self._refuse

    def _refuse(self, verb: str, _path: str) -> None:
        if verb != "GET" and self._refusals:
            self._refusals -= 1
            raise RetryLater("away")

    async def start(self, *, fresh: bool = False) -> None:
        await self._stack.aclose()
        await self._stack.enter_async_context(self.world.running(fresh=fresh))

    async def happens(self, kind: str, *arguments: Any) -> None:
        world = self.world
        if kind in ("serve", "share", "model", "unmodel", "delete", "score", "unscore"):
            self._refusals = 0  # users try until it works
            await self._asks(kind, *arguments)
        elif kind == "finish" and (tasks := [each for each in world.tasks() if "-prepare-" in each]):
            number, how = arguments
            world.finish(tasks[number % len(tasks)], how and "a failure", retry=how == "again")
        elif kind in ("ready", "crash", "drained"):
            self._process(kind, arguments[0])
        elif kind == "runner":
            self._runner(*arguments)
        elif kind == "acknowledge":
            world.gateway.settle()
        elif kind == "away":
            (self._refusals,) = arguments
        elif kind == "restart":
            (fresh,) = arguments
            await self.start(fresh=fresh)

    async def _asks(self, kind: str, *arguments: Any) -> None:
        if kind == "serve":
            name, uri, replicas = arguments
            await self.world.serve(name, uri, replicas=replicas)
            self.wanted[name] = uri if replicas else ""
        elif kind == "share":
            name, model, replicas = arguments
            await self.world.apply("ModelService", name, {"model": {"name": model}, "replicas": replicas})
            self.wanted[name] = model
        elif kind == "model":
            (self.shared,) = arguments
            await self.world.apply("Model", "shared", {"uri": self.shared})
        elif kind == "unmodel" and self.shared:
            self.shared = ""
            await self.world.delete("Model", "shared")
        elif kind == "delete" and self.wanted.pop(arguments[0], None) is not None:
            await self.world.delete("ModelService", arguments[0])

        elif kind == "score":
            parallelism, limit, suspend = arguments
            await self.world.score(
                model={"name": "shared"}, parallelism=parallelism, backoffLimit=limit, suspend=suspend
            )
        elif kind == "unscore" and self.world.api.find(MODELJOBS, "score") is not None:
            await self.world.delete("ModelJob", "score")

    def _runner(self, number: int, what: str) -> None:
        state = MemberState.ENDING if what == "leaves" else MemberState.RUNNING
        found = self.world.runners("score", state)
        if not found:
            return
        driver, name = self.world.driver, found[number % len(found)]
        if what == "works":
            driver.report(name, works(number))
        elif what == "never":
            driver.end(name, status=1, report=failure("SchemaMismatch", "the input has no column X"))
        else:
            driver.end(name, status=0 if what == "done" else 1, report=DONE if what == "done" else None)

    def _process(self, kind: str, number: int) -> None:
        states = {"ready": (STARTING,), "crash": (STARTING, READY), "drained": (DRAINING,)}[kind]
        if found := self.world.replicas(*states):
            lever = {
                "ready": self.world.driver.make_ready,
                "crash": self.world.driver.crash,
                "drained": self.world.driver.drained,
            }[kind]
            lever(found[number % len(found)].name)

    async def ends_well(self) -> None:
        """Everybody does what they should; failures that may heal have healed."""
        self._refusals = 0
        for waits in (70, 2, 35, 2, 2, 2):
            await self.world.passes(waits)
            await self.world.prepares()
            await self.world.loads()
            self.world.gateway.settle()
            await self.world.drains()
            if self.world.runners("score"):
                await self.world.ends("score")
            await self.world.ends_asked("score")

    def watch_jobs(self) -> None:
        """At any moment: what is over stays as it is, and nothing of it is started again."""
        for body in self.world.api.all(MODELJOBS):
            status, uid = body.get("status", {}), body["metadata"]["uid"]
            found = [each["type"] for each in status.get("conditions", ()) if each["status"] == "True"]
            assert not {"Complete", "Failed"} <= set(found)
            if {"Complete", "Failed"} & set(found):
                told = [(each["type"], each["reason"], each["message"]) for each in status["conditions"]]
                assert self.results.setdefault(uid, told) == told

    def _check_job(self) -> None:
        world = self.world
        job = world.api.find(MODELJOBS, "score")
        if job is not None:
            status, reason, message = world.told("score")
            over = "True" in (status, world.told("score", "Failed")[0])
            waits = ("ArtifactNotFound", "ModelNotFound", "Suspended")
            assert over or reason in waits, f"the job says {reason}: {message}"
            assert world.status("score")["active"] == 0
        assert world.job_tasks("score") == ()

    def _digest(self, wanted: str) -> str:
        """What a service must answer with. A Model that could not be read again goes on with what was read before."""
        if wanted != "shared":
            return digest_of(wanted) if wanted else ""
        found = self.world.api.find(MODELS, wanted)
        assert found is not None
        if self.world.ready("Model", wanted)[0] == "True":
            assert found["status"]["digest"] == digest_of(self.shared)
        return str(found["status"]["digest"])

    def check(self) -> None:
        """At rest: what is declared serves or says why not, and nothing else is left."""
        world = self.world
        for name in NAMES:
            if name not in self.wanted:
                assert world.gateway.ask(name)[0] == 404
                continue
            status, reason, message = world.ready("ModelService", name)
            if status == "True":
                assert world.serving(name) == self._digest(self.wanted[name])
            else:
                assert reason in ("ArtifactNotFound", "ModelNotFound"), f"{name} says {reason}: {message}"
        self._check_job()
        uids = {body["metadata"]["uid"] for resource in (MODELSERVICES, MODELJOBS) for body in world.api.all(resource)}
        children = [*world.api.all(CONTROLLERREVISIONS), *world.api.all(MODELS)]
        owners = {each["uid"] for body in children for each in body["metadata"].get("ownerReferences", ())}
        assert owners <= uids
        recorded = {f"{body['metadata']['name']}.default" for body in world.api.all(CONTROLLERREVISIONS)}
        running = [unit.unit.name for unit in world.driver.observe().units]
        assert set(running) <= recorded
        assert len(running) <= len(self.wanted)
        assert world.tasks() == []


@settings(max_examples=2500, deadline=None)
@given(st.lists(st.tuples(EVENTS, PAUSES), max_size=25))
@virtual
async def test_every_history_ends_well(history: list[tuple[tuple[Any, ...], float]]) -> None:
    async with AsyncExitStack() as stack:
        story = Story(stack)
        await story.start()
        for event, pause in history:
            await story.happens(*event)
            await story.world.passes(pause)
            story.watch_jobs()
        await story.ends_well()
        story.watch_jobs()
        story.check()
        version = story.world.api.version
        await story.world.passes(300)
        assert story.world.api.version - version < 10
