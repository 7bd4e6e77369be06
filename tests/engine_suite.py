"""The control loop on an API server that runs: the embedded one as well as Kubernetes.

The loop, its reflectors, the queue and the planners are real, and so is time; processes and the gateway are in memory.
`tests/unit/control/engine` tries far more, on an API in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine_jobs_testing import DONE, JobWorld, works
from engine_streams_testing import StreamWorld
from engine_testing import Object, World, digest_of
from modelyard.base.clock import SystemClock
from modelyard.control.engine.loop import Engine
from modelyard.control.engine.writer import RESOURCES, Writer
from modelyard.control.ir import names
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.queue import WorkQueue
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import ACCESS, CONTROLLERREVISIONS, EVENTS, MODELS, MODELSERVICES, Resource

FOREST, LOGISTIC = "s3://models/forest.onnx", "s3://models/logistic.onnx"
STARTING, READY, DRAINING = ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING
SECONDS = 110.0  # Kubernetes' collector takes up to half a minute to notice new kinds


class LiveApi(Client):
    """A client that also knows, as far as it was told, what there is in one namespace."""

    def __init__(self, config: ClientConfig, namespace: str) -> None:
        super().__init__(config)
        self.version = 0
        resources = (*RESOURCES.values(), CONTROLLERREVISIONS, EVENTS)
        clock = SystemClock()
        self.mirrors = {each.plural: Reflector(self, each, clock=clock, namespace=namespace) for each in resources}
        self._namespace = namespace
        for plural, mirror in self.mirrors.items():
            if plural != EVENTS.plural:
                mirror.add_handler(self._count)

    def find(self, resource: Resource, name: str) -> Object | None:
        return self.mirrors[resource.plural].cache.get((self._namespace, name))

    def all(self, resource: Resource) -> list[Object]:
        return [body for _, body in sorted(self.mirrors[resource.plural].cache.items())]

    def _count(self, *_: object) -> None:
        self.version += 1


class Live(World):
    """The world of one namespace of a server."""

    api: LiveApi  # type: ignore[assignment]  # in place of the one in memory: of that, tests use what both have

    @classmethod
    @asynccontextmanager
    async def on(cls, config: ClientConfig, namespace: str) -> AsyncIterator["Live"]:
        """Until the block ends."""
        world = cls()
        world.namespace, world.clock = namespace, SystemClock()
        world._renew()
        async with LiveApi(config, namespace) as world.api, asyncio.TaskGroup() as group:
            tasks = [group.create_task(mirror.run()) for mirror in world.api.mirrors.values()]
            yield world
            for task in tasks:
                task.cancel()
        await asyncio.sleep(0.25)  # TLS connections end a little after their session: aiohttp, "Graceful Shutdown"

    def _engine(self, recorder: EventRecorder) -> Engine:
        where: Any = {"clock": self.clock, "namespace": self.namespace}
        return Engine(
            objects={kind: Reflector(self.api, resource, **where) for kind, resource in RESOURCES.items()},
            rules={each.kind: Reflector(self.api, each, clock=self.clock) for each in ACCESS},
            revisions=Reflector(self.api, CONTROLLERREVISIONS, **where),
            writer=Writer(self.api, recorder),
            driver=self.driver,
            gateway=self.gateway,
            queue=WorkQueue(),
            clock=self.clock,
            gateway_url=lambda: "http://127.0.0.1:8080",
        )

    async def until(self, fact: Callable[[], bool]) -> None:
        """Processes do well meanwhile."""
        async with asyncio.timeout(SECONDS):
            while not fact():
                self.go_well()
                await asyncio.sleep(0.05)

    def go_well(self) -> None:
        """What prepares ends, what starts is ready, what drains is empty."""
        for name in [each for each in self.tasks() if self.driver._tasks[each].task.work.prepare]:
            self.finish(name)
        for replica in self.replicas(STARTING):
            self.driver.make_ready(replica.name)
        for replica in self.replicas(DRAINING):
            self.driver.drained(replica.name)

    async def settle(self) -> None:
        """Until nothing has changed by itself for a second."""
        before, since = (), self.clock.monotonic()
        async with asyncio.timeout(SECONDS):
            while self.clock.monotonic() - since < 1.0:
                await asyncio.sleep(0.1)
                assert self.engine is not None
                now: Any = (self.api.version, self.engine.counters.reconciles, self.driver.observe())
                if now != before:
                    before, since = now, self.clock.monotonic()

    def answers(self, name: str) -> int:
        return self.gateway.ask(f"{name}.{self.namespace}")[0]


class LiveJobs(Live, JobWorld):
    """With levers for jobs."""


class LiveStreams(Live, StreamWorld):
    """With levers for streams."""


class EngineSuite:
    """Needs the fixture `place`: the configuration of a client, and a namespace of this test."""

    async def test_a_service_becomes_ready_is_scaled_and_deleted(self, place: tuple[ClientConfig, str]) -> None:
        async with Live.on(*place) as world, world.running():
            await world.serve("digits", FOREST)
            await world.until(lambda: world.ready("ModelService", "digits")[0] == "True")
            await world.until(lambda: len(world.api.all(MODELS)) == 1)  # kinds are watched apart
            (model,) = world.api.all(MODELS)
            await world.until(lambda: world.ready("Model", model["metadata"]["name"])[:2] == ("True", "Prepared"))
            await world.until(lambda: world.revisions() == ["digits-svc-00001"])
            assert world.answers("digits") == 200
            await world.api.patch(
                MODELSERVICES, world.namespace, "digits", {"spec": {"replicas": 3}}, subresource="scale"
            )
            await world.until(lambda: len(world.replicas(READY)) == _status(world, "digits").get("replicas") == 3)
            await world.delete("ModelService", "digits")
            await world.until(lambda: world.api.find(MODELSERVICES, "digits") is None and not world.replicas())
            assert world.answers("digits") == 404
            await world.until(lambda: not world.revisions() and not world.api.all(MODELS))  # collected by the server

    async def test_another_model_takes_over_without_a_gap(self, place: tuple[ClientConfig, str]) -> None:
        async with Live.on(*place) as world, world.running():
            await world.serve("digits", FOREST)
            await world.until(lambda: world.ready("ModelService", "digits")[0] == "True")
            await world.serve("digits", LOGISTIC)
            seen: set[int] = set()

            def switched() -> bool:
                seen.add(world.answers("digits"))
                return _status(world, "digits").get("latestReadyRevision") == "digits-svc-00002" and _only_ready(world)

            await world.until(switched)
            assert seen == {200}
            assert world.serving(f"digits.{world.namespace}") == digest_of(LOGISTIC)

    async def test_another_control_plane_finds_everything_as_it_is(self, place: tuple[ClientConfig, str]) -> None:
        async with Live.on(*place) as world:
            async with world.running():
                await world.serve("digits", FOREST)
                await world.until(lambda: world.ready("ModelService", "digits")[0] == "True")
                await world.settle()
            before = _written(world)
            async with world.running() as second:
                async with asyncio.timeout(SECONDS):
                    while not second.counters.reconciles:  # noqa: ASYNC110  nobody announces it
                        await asyncio.sleep(0.05)
                await world.settle()
            assert _written(world) == before

    async def test_a_job_runs_once_and_what_it_did_is_told(self, place: tuple[ClientConfig, str]) -> None:
        async with LiveJobs.on(*place) as world:
            assert isinstance(world, LiveJobs)
            async with world.running():
                await world.score(model={"uri": FOREST})
                await world.until(lambda: bool(world.runners("score")))
                world.driver.report(world.runners("score")[0], works(3))
                await world.until(lambda: world.status("score").get("progressPercentage") == 37)
                world.driver.end(world.runners("score")[0], report=DONE)
                await world.until(lambda: world.told("score")[:2] == ("True", "Completed"))
                assert len(world.started()) == 1
                await world.delete("ModelJob", "score")
                await world.until(lambda: not world.api.all(MODELS))

    async def test_a_stream_is_cleaned_up_before_it_goes(self, place: tuple[ClientConfig, str]) -> None:
        async with LiveStreams.on(*place) as world:
            assert isinstance(world, LiveStreams)
            async with world.running():
                await world.follow(model={"uri": FOREST})
                await world.until(lambda: len(world.runners()) == 2)
                found = world.find_stream()
                assert found is not None
                assert found["metadata"]["finalizers"] == [names.FINALIZER_CLEAN]
                await world.delete("ModelStream", "fraud")
                await world.until(lambda: bool(world.cleaning()))
                assert world.find_stream() is not None
                world.ends_cleaning(world.cleaning()[0])
                await world.until(lambda: world.find_stream() is None)

    async def test_what_is_wrong_is_told_and_is_over_when_it_is_mended(self, place: tuple[ClientConfig, str]) -> None:
        async with Live.on(*place) as world, world.running():
            await world.apply("ModelService", "digits", {"model": {"name": "forest"}})
            await world.until(lambda: world.ready("ModelService", "digits")[:2] == ("False", "ModelNotFound"))
            await world.apply("Model", "forest", {"uri": FOREST})
            await world.until(lambda: world.ready("ModelService", "digits")[0] == "True")
            told = world.events()
            assert [count for text, count in told.items() if text.startswith("ModelNotFound: ")] == [1]

    async def test_a_recorded_revision_cannot_be_changed(self, place: tuple[ClientConfig, str]) -> None:
        async with Live.on(*place) as world, world.running():
            await world.serve("digits", FOREST)
            await world.until(lambda: bool(world.revisions()))
            with pytest.raises(ApiError) as caught:
                await world.api.patch(
                    CONTROLLERREVISIONS, world.namespace, "digits-svc-00001", {"data": {"other": True}}
                )
            assert caught.value.status == 422


def _written(world: Live) -> dict[str, list[str]]:
    """What the loop has written and done."""
    versions = [
        f"{plural}/{name} {body['metadata']['resourceVersion']}"
        for plural, mirror in world.api.mirrors.items()
        for (_, name), body in sorted(mirror.cache.items())
        if plural != EVENTS.plural
    ]
    return {"versions": versions, "actions": [str(action) for action in world.driver.applied]}


def _status(world: World, name: str) -> Object:
    found = world.api.find(MODELSERVICES, name)
    status: Object = (found or {}).get("status", {})
    return status


def _only_ready(world: World) -> bool:
    return {replica.state for replica in world.replicas()} == {READY}
