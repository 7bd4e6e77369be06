"""What the suite for drivers needs to run on a cluster: what it has in `default` is in a namespace of the test."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from cluster_driver_testing import Rig
from cluster_serving_testing import secret
from cluster_testing import Namespace
from modelyard.base.clock import SystemClock
from modelyard.base.errors import ModelyardError
from modelyard.control.drivers.kube.driver import KubeDriver
from modelyard.control.ir.actions import Action, Run, Start
from modelyard.control.ir.observed import Capabilities, Observed, ObservedMember, ObservedReplica
from modelyard.control.ir.unit import SecretKey
from modelyard.control.ir.values import Key
from modelyard.wire.work import WorkSpec, decode

_HERE = "default"


class Elsewhere:
    """A driver of pods for those who believe that they are in `default`."""

    def __init__(self, driver: KubeDriver, namespace: str) -> None:
        self._driver, self._there = driver, namespace

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    async def apply(self, action: Action) -> None:
        match action:
            case Start():
                moved: Action = msgspec.structs.replace(action, unit=self._sent(action.unit))
            case Run():
                moved = msgspec.structs.replace(action, task=self._sent(action.task))
            case _:
                name = "task" if hasattr(action, "task") else "unit"
                changes = {name: self._there_is(getattr(action, name)), "owner": self._key(action.owner, self._there)}
                moved = msgspec.structs.replace(action, **changes)
        try:
            await self._driver.apply(moved)
        except ModelyardError as error:
            raise type(error)(error.message.replace(self._there, _HERE)) from error

    def observe(self, owner: Key | None = None) -> Observed:
        found = self._driver.observe(self._key(owner, self._there) if owner else None)
        units = [each for each in found.units if each.unit.owner.namespace == self._there]
        tasks = [each for each in found.tasks if each.owner.namespace == self._there]
        return Observed(
            units=tuple(msgspec.structs.replace(each, unit=self._told(each.unit)) for each in units),
            tasks=tuple(self._told(each) for each in tasks),
        )

    async def hints(self) -> AsyncIterator[Key]:
        async for key in self._driver.hints():
            if key.namespace == self._there:  # others of the cluster may still be on their way out
                yield self._key(key, _HERE)

    def _sent(self, what: Any) -> Any:
        owner = self._key(what.owner, self._there)
        return msgspec.structs.replace(what, name=self._there_is(what.name), owner=owner)

    def _told(self, what: Any) -> Any:
        name = what.name.removesuffix(self._there) + _HERE
        return msgspec.structs.replace(what, name=name, owner=self._key(what.owner, _HERE))

    def _there_is(self, name: str) -> str:
        return name.removesuffix(_HERE) + self._there if name.endswith(f".{_HERE}") else name

    def _key(self, key: Key, namespace: str) -> Key:
        return msgspec.structs.replace(key, namespace=namespace)


class Secrets(dict[str, dict[str, bytes]]):
    """Those that are put here are made."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def __setitem__(self, name: str, values: dict[str, bytes]) -> None:
        super().__setitem__(name, values)
        self._namespace.apply(secret(name, {key: value.decode() for key, value in values.items()}))


class SuiteRig:
    """As `modelyard.testing.driver_rig.Rig`, in one namespace."""

    def __init__(self, rig: Rig) -> None:
        self.clock = SystemClock()
        self.driver = Elsewhere(rig.driver, rig.namespace.name)
        self.secrets: dict[SecretKey, str] = {}
        self.secret_files: dict[str, dict[str, bytes]] = Secrets(rig.namespace)
        self._namespace = rig.namespace

    async def step(self) -> None:
        await asyncio.sleep(0.05)

    def kill(self, process: ObservedReplica | ObservedMember) -> None:
        self._namespace.cluster.signal(self._namespace.find("pod", process.name), "SIGKILL")

    def work(self, process: ObservedReplica) -> WorkSpec:
        annotations = self._namespace.find("pod", process.name)["metadata"]["annotations"]
        return decode(json.dumps(json.loads(annotations["modelyard.dev/work"])).encode())

    def look_again(self) -> None:
        """Kubernetes does by itself."""
