"""A stream in the whole loop under random histories: users, runners, a broker and an API server away, restarts."""

from contextlib import AsyncExitStack
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_streams_testing import BOOSTED, FOREST, StreamWorld, says
from engine_testing import digest_of, virtual
from modelyard.base.errors import RetryLater
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.kube.client import ApiError
from modelyard.control.kube.resources import CONTROLLERREVISIONS, MODELS, MODELSTREAMS
from modelyard.wire.report import Failure

READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING
index = st.integers(0, 5)
EVENTS = st.one_of(
    st.tuples(st.just("apply"), st.sampled_from([FOREST, BOOSTED, ""]), st.integers(0, 2), st.booleans()),
    st.tuples(st.just("apply"), st.sampled_from([FOREST, BOOSTED]), st.integers(1, 2), st.just(False)),
    st.tuples(st.just("delete")),
    st.tuples(st.just("prepare"), st.booleans()),
    st.tuples(st.just("ready"), index),
    st.tuples(st.just("ready"), index),
    st.tuples(st.just("crash"), index),
    st.tuples(st.just("drained"), index),
    st.tuples(st.just("report"), index, st.sets(st.integers(0, 1)), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("clean"), st.booleans()),
    st.tuples(st.just("away"), st.integers(1, 6)),
    st.tuples(st.just("restart"), st.booleans()),
)
PAUSES = st.sampled_from([0.0, 0.002, 0.3, 5.0, 70.0])


class Story:
    """A world, and what its user asked for last: the uri of the model, "" for one that is not there."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.world = StreamWorld()
        self.wanted: tuple[str, bool] | None = None
        self._stack = stack
        self._refusals = 0
        self._begun: dict[str, set[int]] = {}
        """Partitions that status says have begun, by uid."""
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
        going = (world.find_stream() or {}).get("metadata", {}).get("deletionTimestamp")
        if kind == "apply" and not going:
            uri, replicas, suspend = arguments
            self._refusals = 0  # users try until it works
            model = {"uri": uri} if uri else {"name": "missing"}
            await world.follow(model=model, replicas=replicas, suspend=suspend)
            self.wanted = (uri, bool(replicas) and not suspend)
        elif kind == "delete" and world.find_stream() is not None:
            self._refusals, self.wanted = 0, None
            try:
                await world.delete("ModelStream", "fraud")
            except ApiError as error:
                if error.status != 404:  # one that was going may be gone by now
                    raise
        elif kind == "away":
            (self._refusals,) = arguments
        elif kind == "restart":
            await self.start(fresh=arguments[0])
        elif kind in ("prepare", "clean"):
            self._task(kind, *arguments)
        elif kind in ("ready", "crash", "drained", "report"):
            self._process(kind, *arguments)

    def _task(self, kind: str, well: bool) -> None:
        found = [each for each in self.world.tasks() if f"-{kind}-" in each]
        if found and kind == "prepare":
            self.world.finish(found[0], "" if well else "a failure")
        elif found:
            self.world.ends_cleaning(found[0], "" if well else "a failure")

    def _process(self, kind: str, number: int, *more: Any) -> None:
        states = {"ready": (STARTING,), "crash": (STARTING, READY), "drained": (DRAINING,), "report": (READY,)}[kind]
        found = self.world.runners("fraud", *states)
        if not found:
            return
        name, driver = found[number % len(found)], self.world.driver
        if kind == "report":
            held, position, bad = more
            problem = Failure(reason="BrokerFull", message="full", retry=True) if bad else None
            driver.report(name, says(*((each, position) for each in sorted(held)), problem=problem))
        else:
            {"ready": driver.make_ready, "crash": driver.crash, "drained": driver.drained}[kind](name)

    def watch(self) -> None:
        """At any moment: what has begun is remembered, and whoever starts is told."""
        found = self.world.find_stream()
        if found is None:
            return
        begun = {each["number"] for each in found.get("status", {}).get("partitions", ()) if "committed" in each}
        before = self._begun.setdefault(found["metadata"]["uid"], set())
        assert before <= begun
        before |= begun

    async def ends_well(self) -> None:
        """Everybody does what they should; failures that may heal have healed."""
        self._refusals = 0
        for waits in (70, 2, 35, 2, 2, 2):
            await self.world.passes(waits)
            await self.world.prepares()
            await self.world.loads()
            await self.world.drains()
            ready = self.world.runners()
            for name in ready[1:]:
                self.world.driver.report(name, says())
            if ready:
                self.world.driver.report(ready[0], says((0, 10), (1, 10)))
            for name in self.world.cleaning():
                self.world.ends_cleaning(name)
            await self.world.settle()

    def check(self) -> None:
        """At rest: what is declared is scored or says why not, and nothing else is left."""
        world = self.world
        found = world.find_stream()
        if self.wanted is None:
            assert found is None
            assert world.driver.observe() == type(world.driver.observe())()
            assert [*world.api.all(CONTROLLERREVISIONS), *world.api.all(MODELS)] == []
            return
        uri, runs = self.wanted
        if not runs:
            assert world.told()[1] in ("Suspended", "ScaledToZero")
            assert world.runners("fraud", *ReplicaState) == []
        elif not uri:
            assert world.told() == ("False", "ModelNotFound")
        elif world.told()[1] != "ArtifactNotFound":
            assert world.told() == ("True", "Following")
            assert world.status()["digest"] == digest_of(uri)
            assert {each.rpartition(".")[0] for each in world.runners("fraud", *ReplicaState)} == {
                world.status()["latestCreatedRevision"]
            }
        assert world.tasks() == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(EVENTS, PAUSES), max_size=20))
@virtual
async def test_every_history_of_a_stream_ends_well(history: list[tuple[tuple[Any, ...], float]]) -> None:
    async with AsyncExitStack() as stack:
        story = Story(stack)
        await story.start()
        for event, pause in history:
            await story.happens(*event)
            await story.world.passes(pause)
            story.watch()
        await story.ends_well()
        story.watch()
        story.check()
        version = story.world.api.version
        await story.world.passes(300)
        assert story.world.api.version - version < 10
        assert story.world.api.all(MODELSTREAMS) == ([] if story.wanted is None else [story.world.find_stream()])
