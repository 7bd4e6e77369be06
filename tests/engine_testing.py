"""The control loop with everything real but the world: API, processes and gateway in memory, and a time that jumps.

`virtual` runs a test on an event loop whose time moves on by itself as soon as nobody has anything left to do.
"""

import asyncio
import copy
import functools
import hashlib
import json
import selectors
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

from modelyard.api import API_VERSION
from modelyard.base.clock import Clock, timestamp
from modelyard.control.drivers.memory import MemoryDriver
from modelyard.control.engine.loop import Engine
from modelyard.control.engine.writer import RESOURCES, Writer
from modelyard.control.gateway.memory import MemoryGateway
from modelyard.control.ir.actions import Action, Resize, Start, Stop
from modelyard.control.ir.observed import ObservedReplica, ReplicaState
from modelyard.control.ir.values import Key
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.queue import WorkQueue
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import ACCESS, CONTROLLERREVISIONS, EVENTS, Resource
from modelyard.control.plan.platform import Ground, Standing, stand
from modelyard.wire.report import PrepareReport, Report, failure

Object = dict[str, Any]
P = ParamSpec("P")
_BEGAN = 1_700_000_000.0
_OURS = {resource.plural: resource for resource in RESOURCES.values()}


class _Selector(selectors.DefaultSelector):
    """Never waits: it moves the time instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def virtual(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


class LoopClock:
    """The loop's time as a clock."""

    def now(self) -> float:
        return _BEGAN + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class MemoryApi(Client):
    """Versions, generations, statuses apart, conflicts, watches, and owners that take their children along.

    writes: (verb, plural, name) of every accepted change. refuse: raises for a request that shall fail.
    """

    def __init__(self) -> None:
        super().__init__(ClientConfig(server="http://nowhere"))
        self.writes: list[tuple[str, str, str]] = []
        self.refuse: Callable[[str, str], None] = lambda _verb, _path: None
        self.version = 0
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._log: list[tuple[int, str, str, Object]] = []
        self._uids = 0
        self._news = asyncio.Event()

    def find(self, resource: Resource, name: str, namespace: str = "default") -> Object | None:
        return self._objects.get((resource.plural, namespace, name))

    def all(self, resource: Resource) -> list[Object]:
        return [body for (plural, _, _), body in sorted(self._objects.items()) if plural == resource.plural]

    def place(self, resource: Resource, name: str, namespace: str = "default", **body: Any) -> None:
        """As somebody else would: create an object, or replace what it says."""
        at = (resource.plural, namespace if resource.namespaced else "", name)
        old = self._objects.get(at)
        self._uids += old is None
        metadata = old["metadata"] if old else {"name": name, "uid": f"uid-{self._uids}", "generation": 1}
        metadata = {**metadata, **({"namespace": namespace} if resource.namespaced else {})}
        self._store("MODIFIED" if old else "ADDED", at, {"metadata": metadata, **body}, "place")

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        parameters: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        await asyncio.sleep(0.001)
        self.refuse(method, path)
        parts = path.split("/")
        if "namespaces" not in parts:
            return {"metadata": {"resourceVersion": str(self.version)}, "items": self._listed(parts[-1])}
        namespace, plural, *rest = parts[parts.index("namespaces") + 1 :]
        body = json.loads(json.dumps(body))
        if method == "POST":
            return self._create((plural, namespace, body["metadata"]["name"]), body)
        at = (plural, namespace, rest[0])
        if at not in self._objects:
            raise ApiError(404, "NotFound", f"{plural} {rest[0]} not found")
        if method == "PUT":
            return self._put_status(at, body)
        if method == "PATCH":
            return self._merge(at, body)
        if method == "DELETE":
            wanted, found = (body or {}).get("preconditions", {}), self._objects[at]["metadata"]
            if any(found[name] != value for name, value in wanted.items()):
                raise ApiError(409, "Conflict", "precondition failed")
            return self._delete(at)
        return copy.deepcopy(self._objects[at])

    async def watch(
        self, resource: Resource, namespace: str | None, parameters: Mapping[str, str], *, idle: float
    ) -> AsyncGenerator[Object, None]:
        at = int(parameters["resourceVersion"])
        while True:
            for version, plural, kind, body in self._log[:]:
                if version > at:
                    at = version
                    if plural == resource.plural:
                        yield {"type": kind, "object": copy.deepcopy(body)}
            if at == self.version:
                news = self._news
                await news.wait()

    def _delete(self, at: tuple[str, str, str]) -> Object:
        """What has finalizers waits for them."""
        found = self._objects[at]
        if not found["metadata"].get("finalizers"):
            return self.remove(at)
        if "deletionTimestamp" in found["metadata"]:
            return copy.deepcopy(found)
        stamp = timestamp(_BEGAN + asyncio.get_running_loop().time())
        generation = found["metadata"]["generation"] + 1
        metadata = {**found["metadata"], "deletionTimestamp": stamp, "generation": generation}
        return self._store("MODIFIED", at, {**found, "metadata": metadata}, "mark")

    def remove(self, at: tuple[str, str, str]) -> Object:
        gone = self._objects.pop(at)
        self._note("DELETED", at, gone, "delete")
        uid = gone["metadata"]["uid"]
        for child in [key for key, body in self._objects.items() if uid in _owners(body)]:
            asyncio.get_running_loop().call_later(0.05, self._collect, child, uid)
        return gone

    def write_past_the_schema(self, resource: Resource, name: str, **changes: Any) -> None:
        at = (resource.plural, "default", name)
        self._store("MODIFIED", at, {**self._objects[at], **changes}, "force")

    def _collect(self, at: tuple[str, str, str], uid: str) -> None:
        if at in self._objects and uid in _owners(self._objects[at]):
            self.remove(at)

    def _listed(self, plural: str) -> list[Object]:
        return copy.deepcopy([body for key, body in sorted(self._objects.items()) if key[0] == plural])

    def _create(self, at: tuple[str, str, str], body: Object) -> Object:
        if at in self._objects:
            raise ApiError(409, "AlreadyExists", f"{at[0]} {at[2]} already exists")
        self._uids += 1
        body["metadata"] |= {"uid": f"uid-{self._uids}", "generation": 1}
        if at[0] in _OURS:
            body.pop("status", None)
        living = {each["metadata"]["uid"] for each in self._objects.values()}
        for uid in set(_owners(body)) - living:  # decided before the owner was deleted
            asyncio.get_running_loop().call_later(0.05, self._collect, at, uid)
        return self._store("ADDED", at, body, "create")

    def _put_status(self, at: tuple[str, str, str], body: Object) -> Object:
        stored = self._objects[at]
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return self._store("MODIFIED", at, {**stored, "status": body["status"]}, "status")

    def _merge(self, at: tuple[str, str, str], body: Object) -> Object:
        stored = self._objects[at]
        known = stored["metadata"]["resourceVersion"]
        if body.get("metadata", {}).get("resourceVersion", known) != known:
            raise ApiError(409, "Conflict", "the object has been modified")
        merged = {**stored, **body, "metadata": {**stored["metadata"], **body.get("metadata", {})}}
        if "deletionTimestamp" in merged["metadata"] and not merged["metadata"].get("finalizers"):
            return self.remove(at)
        if merged.get("spec") != stored.get("spec"):
            merged["metadata"]["generation"] += 1
        return self._store("MODIFIED", at, merged, "patch")

    def _store(self, kind: str, at: tuple[str, str, str], body: Object, verb: str) -> Object:
        if body == self._objects.get(at):
            return copy.deepcopy(body)
        self._objects[at] = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version + 1)}}
        self._note(kind, at, self._objects[at], verb)
        return copy.deepcopy(self._objects[at])

    def _note(self, kind: str, at: tuple[str, str, str], body: Object, verb: str) -> None:
        self.version += 1
        if at[0] != EVENTS.plural:
            self.writes.append((verb, at[0], at[2]))
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self._log.append((self.version, at[0], kind, body))
        self._news.set()
        self._news = asyncio.Event()


class _CheckedDriver(MemoryDriver):
    """No unit is stopped, and none emptied, while the route in force names it. abandoned: units of deleted services."""

    def __init__(self, clock: Clock, gateway: MemoryGateway, abandoned: set[str]) -> None:
        super().__init__(clock, secret_files=lambda *_: {})
        self.applied: list[Action] = []
        self.violations: list[str] = []
        self._gateway = gateway
        self._abandoned = abandoned

    async def apply(self, action: Action) -> None:
        self.applied.append(action)
        if isinstance(action, Stop) or (isinstance(action, Resize) and action.replicas == 0):
            acknowledged = self._gateway.observe(action.owner).acknowledged
            in_force = set(acknowledged.units) if acknowledged else set()
            if action.unit in in_force - self._abandoned:
                self.violations.append(f"requests still go to {action.unit}: {action}")
        if isinstance(action, Start):
            self._abandoned.discard(action.unit.name)  # the name is of a new service now
        await super().apply(action)


class World:
    """What outlives the control plane, levers for users and processes, and what must always hold.

    standing: what a control plane is told before it runs; None: nothing.
    """

    namespace = "default"

    def __init__(self, *, automatic_gateway: bool = True) -> None:
        self.clock: Clock = LoopClock()
        self.api = MemoryApi()
        self.abandoned: set[str] = set()
        self.engine: Engine | None = None
        self.standing: Standing | None = stand(Ground())[0]
        self._automatic = automatic_gateway
        self._renew()

    def _renew(self) -> None:
        self.gateway = MemoryGateway(automatic=self._automatic)
        self.driver = _CheckedDriver(self.clock, self.gateway, self.abandoned)

    @asynccontextmanager
    async def running(self, *, fresh: bool = False) -> AsyncIterator[Engine]:
        """A control plane. fresh: nothing of what an earlier one started is left."""
        if fresh:
            self._renew()
        recorder = EventRecorder(self.api, "modelyard", self.clock)
        self.engine = engine = self._engine(recorder)
        if self.standing is not None:
            engine.stand(self.standing)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.run()), group.create_task(recorder.run())]
            await asyncio.sleep(0)
            try:
                yield engine
            finally:
                for task in tasks:
                    task.cancel()
        assert self.driver.violations == []

    def _engine(self, recorder: EventRecorder) -> Engine:
        return Engine(
            objects={kind: Reflector(self.api, resource, clock=self.clock) for kind, resource in RESOURCES.items()},
            rules={each.kind: Reflector(self.api, each, clock=self.clock) for each in ACCESS},
            revisions=Reflector(self.api, CONTROLLERREVISIONS, clock=self.clock),
            writer=Writer(self.api, recorder),
            driver=self.driver,
            gateway=self.gateway,
            queue=WorkQueue(jitter=lambda seconds: seconds),
            clock=self.clock,
            gateway_url=lambda: "http://127.0.0.1:8080",
        )

    async def settle(self) -> None:
        """Until nothing changes any more by itself within half a second."""
        before: object = None
        for _ in range(200):
            await asyncio.sleep(0.5)
            assert self.engine is not None
            now = (self.api.version, self.engine.counters.reconciles, self.driver.observe())
            if now == before:
                return
            before = now
        raise AssertionError("the control loop finds no rest")

    async def passes(self, seconds: float) -> None:
        """Time, in which processes go on."""
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 1e-6:
            await asyncio.sleep(min(left, 0.5))
            self.driver.observe()

    async def apply(self, kind: str, name: str, spec: Object, **metadata: Any) -> None:
        """As a user would: create, or change the spec."""
        resource = RESOURCES[kind]
        if self.api.find(resource, name) is not None:
            await self.api.patch(resource, self.namespace, name, {"spec": spec, "metadata": metadata})
            return
        body = {"apiVersion": API_VERSION, "kind": kind, "spec": spec}
        await self.api.create(resource, {**body, "metadata": {"name": name, "namespace": self.namespace, **metadata}})

    async def serve(self, name: str, uri: str, **spec: Any) -> None:
        await self.apply("ModelService", name, {"model": {"uri": uri}, **spec})

    async def delete(self, kind: str, name: str) -> None:
        if kind == "ModelService":
            units = self.driver.observe(Key(kind=kind, namespace=self.namespace, name=name)).units
            self.abandoned |= {each.unit.name for each in units}
        await self.api.delete(RESOURCES[kind], self.namespace, name)

    def ready(self, kind: str, name: str) -> tuple[str, str, str]:
        """Status, reason and message of the condition Ready."""
        found = self.api.find(RESOURCES[kind], name) or {}
        for condition in found.get("status", {}).get("conditions", ()):
            if condition["type"] == "Ready":
                return condition["status"], condition["reason"], condition["message"]
        return "", "", ""

    def events(self) -> dict[str, int]:
        return {f"{each['reason']}: {each['message']}": each["count"] for each in self.api.all(EVENTS)}

    def replicas(self, *states: ReplicaState) -> list[ObservedReplica]:
        members = [member for unit in self.driver.observe().units for member in unit.members]
        return [member for member in members if not states or member.state in states]

    def tasks(self) -> list[str]:
        """Names of those that run."""
        return [task.name for task in self.driver.observe().tasks if task.finished_at is None]

    async def prepares(self, broken: str = "", *, retry: bool = True) -> None:
        """Every task that prepares ends, in a failure with that message if there is one."""
        await self.settle()
        for name in [each for each in self.tasks() if self.driver._tasks[each].task.work.prepare]:
            self.finish(name, broken, retry=retry)
        await self.settle()

    def finish(self, task: str, broken: str = "", *, retry: bool = True) -> None:
        work = self.driver._tasks[task].task.work.prepare
        assert work is not None
        report = PrepareReport(digest=digest_of(work.uri), format="onnx", size_bytes=9)
        self.driver.finish(task, failure("ArtifactNotFound", broken, retry=retry) if broken else Report(prepare=report))

    async def loads(self) -> None:
        """Every replica that starts becomes ready."""
        for replica in self.replicas(ReplicaState.STARTING):
            self.driver.make_ready(replica.name)
        await self.settle()

    async def drains(self) -> None:
        for replica in self.replicas(ReplicaState.DRAINING):
            self.driver.drained(replica.name)
        await self.settle()

    async def all_goes_well(self) -> None:
        """Until nothing is left to do but to serve."""
        for _ in range(8):
            await self.prepares()
            await self.loads()
            await self.drains()

    def serving(self, name: str) -> str:
        """The digest that answers; "" if nothing does."""
        code, unit = self.gateway.ask(name)
        found = next((each.unit for each in self.driver.observe().units if each.unit.name == unit), None)
        if code != 200 or found is None or found.work.serve is None:
            return ""
        return found.work.serve.models[0].digest

    def revisions(self) -> list[str]:
        return [body["metadata"]["name"] for body in self.api.all(CONTROLLERREVISIONS)]


def digest_of(uri: str) -> str:
    return "sha256:" + hashlib.sha256(uri.encode()).hexdigest()


def _owners(body: Object) -> list[str]:
    return [each["uid"] for each in body["metadata"].get("ownerReferences", ())]
