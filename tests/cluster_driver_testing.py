"""A KubeDriver on a real cluster, in a namespace of its own, with the stand-in image."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from cluster_testing import Namespace
from modelyard.base.clock import SystemClock
from modelyard.control.drivers.kube.driver import KubeDriver
from modelyard.control.ir import names
from modelyard.control.ir.actions import Action
from modelyard.control.ir.observed import ObservedReplica, ObservedTask, ObservedUnit, ReplicaState, Trouble
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Resources, Unit
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import Client
from modelyard.control.render.kube_pod import PodSettings
from modelyard.testing import driver_rig
from modelyard.wire.work import ModelWork, PrepareWork, ServeWork, WorkSpec
from stand_in_image_testing import PREFIX, VERSION

Object = dict[str, Any]
SETTINGS = PodSettings(image_prefix=PREFIX, version=VERSION, pull_policy="Never")
MIB = 2**20
SMALL = Resources(cpu_request_millis=5, memory_request_bytes=16 * MIB, memory_limit_bytes=128 * MIB)
_GRACE: Object = {"grace_seconds": 3.0}
"""A process that is asked to end before it can hear that, as Python begins, lasts as long."""
_PATIENCE_SECONDS = 60.0


class Rig:
    """driver: running. Owners are ConfigMaps, so that nothing else of ours has to be there."""

    def __init__(self, namespace: Namespace, client: Client, settings: PodSettings) -> None:
        self.namespace = namespace
        self.client = client
        self.owners: dict[str, Object] = {}
        self.templates: dict[str, Object] = {}
        self.driver = KubeDriver(
            client,
            place=settings,
            recorded=lambda what: self.templates.get(what.name),
            owner=self._owner,
            unit_secret=lambda name: f"secret of {name}",
            clock=SystemClock(),
        )

    def unit(self, name: str = "iris-svc-00001", lever: str = "", **changes: Any) -> Unit:
        """A unit that serves one model."""
        owner = Key(kind="ModelService", namespace=self.namespace.name, name=name.partition("-svc-")[0])
        changes = {"drain_seconds": 2.0, **changes}
        return driver_rig.unit(f"{name}.{self.namespace.name}", owner, **_filled(lever, changes))

    def stream(self, lever: str = "") -> Unit:
        """A unit that follows a stream."""
        owner = Key(kind="ModelStream", namespace=self.namespace.name, name="fraud")
        work = WorkSpec(stream=driver_rig.following())
        filled = _filled(lever, {"work": work, "drain_seconds": 2.0})
        return driver_rig.unit(f"fraud-stream-00001.{self.namespace.name}", owner, **filled)

    def task(self, lever: str = "", **changes: Any) -> Task:
        """A task that prepares one model."""
        owner = Key(kind="Model", namespace=self.namespace.name, name="iris")
        name = f"iris-prepare-1-1.{self.namespace.name}"
        work = WorkSpec(prepare=PrepareWork(uri="s3://models/iris.onnx"))
        return driver_rig.task(name, **_filled(lever, {"owner": owner, "work": work, **changes}))

    def crew(self, lever: str = "", **changes: Any) -> Task:
        """A task of two members that score."""
        owner = Key(kind="ModelJob", namespace=self.namespace.name, name="score")
        return driver_rig.crew(
            f"score-job-1.{self.namespace.name}", **_filled(lever, {"owner": owner, **_GRACE, **changes})
        )

    def gang(self, lever: str = "", **changes: Any) -> Task:
        """A task of two members that run a program together."""
        owner = Key(kind="ModelJob", namespace=self.namespace.name, name="train")
        return driver_rig.gang(
            f"train-job-1.{self.namespace.name}", **_filled(lever, {"owner": owner, **_GRACE, **changes})
        )

    async def apply(self, *actions: Action) -> None:
        """One after the other."""
        for action in actions:
            await self.driver.apply(action)

    def found(self, name: str) -> ObservedUnit | None:
        """A unit as it is observed."""
        return next((each for each in self.driver.observe().units if each.unit.name == name), None)

    def members(self, name: str) -> tuple[ObservedReplica, ...]:
        """Of a unit."""
        each = self.found(name)
        return each.members if each else ()

    def result(self, name: str) -> ObservedTask | None:
        """A task as it is observed."""
        return next((each for each in self.driver.observe().tasks if each.name == name), None)

    async def until(self, fact: Callable[[], Any], what: str, seconds: float = _PATIENCE_SECONDS) -> Any:
        """What the fact tells when it is true at last."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (found := fact()):
            assert asyncio.get_running_loop().time() < deadline, f"{what}: not in time: {self.driver.observe()}"
            await asyncio.sleep(0.1)
        return found

    async def ready(self, name: str, replicas: int = 1) -> tuple[ObservedReplica, ...]:
        """Wait until exactly so many replicas are there and ready."""
        expected = [ReplicaState.READY] * replicas
        await self.until(lambda: [m.state for m in self.members(name)] == expected, f"{replicas} ready of {name}")
        return self.members(name)

    async def ended(self, name: str) -> ObservedTask:
        """Wait until a task has ended."""

        def over() -> ObservedTask | None:
            each = self.result(name)
            return each if each is not None and each.finished_at is not None else None

        found: ObservedTask = await self.until(over, f"{name} has ended")
        return found

    async def trouble(self, name: str, reason: str) -> Trouble:
        """Wait until a replica or member is in this trouble."""

        def has() -> Trouble | None:
            task = self.result(name)
            some = [each.trouble for each in self.members(name)]
            some += [each.trouble for each in (task.members if task else ())]
            return next((each for each in some if each and each.reason == reason), None)

        found: Trouble = await self.until(has, f"{name} in trouble {reason}")
        return found

    async def get(self, address: str, path: str) -> Any:
        """What a pod answers."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
            return await answer.json(content_type=None)

    def _owner(self, key: Key) -> Object:
        if key.name not in self.owners:
            self.namespace("create", "configmap", key.name)
            stored = self.namespace.find("configmap", key.name)
            self.owners[key.name] = {"apiVersion": "v1", "kind": "ConfigMap", **stored}
        return self.owners[key.name]


@asynccontextmanager
async def driving(namespace: Namespace, settings: PodSettings = SETTINGS) -> AsyncIterator[Rig]:
    """A rig whose driver runs until the block ends.

    Under a label of its own: an operator in the same cluster ends whatever is of objects that it does not know.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "POD_NAME", "modelyard-model-of-a-test")
        async with _driving(namespace, settings) as rig:
            yield rig
    await asyncio.sleep(0.05)  # what was aborted over TLS is closed by the loop


@asynccontextmanager
async def _driving(namespace: Namespace, settings: PodSettings) -> AsyncIterator[Rig]:
    async with Client(namespace.cluster.config) as client, asyncio.TaskGroup() as group:
        rig = Rig(namespace, client, settings)
        running = group.create_task(rig.driver.run())
        try:
            await rig.driver.synced.wait()
            yield rig
        finally:
            running.cancel()


def fetched_model(**changes: Any) -> WorkSpec:
    """Serve work whose artifact is elsewhere."""
    model = ModelWork(name="iris.default", digest="sha256:" + "0" * 64, format="onnx", uri="s3://models/iris.onnx")
    return WorkSpec(serve=ServeWork(models=(model,), **changes))


def _filled(lever: str, changes: dict[str, Any]) -> dict[str, Any]:
    return {"lever": lever, "resources": SMALL, **changes}
