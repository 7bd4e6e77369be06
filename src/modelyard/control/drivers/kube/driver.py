"""The Driver that runs units and tasks as pods of a Kubernetes cluster.

It keeps nothing to itself: what was asked for is stored with what runs it, so that whoever is the next leader sees the
same. Every write is a creation under a name of its own, says the same when it is said twice, or carries the version
that it was decided on: one that a stopped leader sends too late changes nothing that it should not.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from modelyard.base.clock import Clock, SystemClock
from modelyard.base.errors import RetryLater
from modelyard.control.drivers import rules
from modelyard.control.drivers.hints import Hints
from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.gangs import Gangs, attempt_of
from modelyard.control.drivers.kube.index import Index
from modelyard.control.drivers.kube.looks import Looks
from modelyard.control.drivers.kube.refused import Refused
from modelyard.control.drivers.kube.writes import Writes
from modelyard.control.ir import names
from modelyard.control.ir import unit_secret as unit_secrets
from modelyard.control.ir.actions import Action, Adjust, Forget, Resize, Run, Start, Stop
from modelyard.control.ir.observed import Capabilities, Observed
from modelyard.control.ir.revision import Recorded, Revision
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.unit_secret import UnitSecret
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import Client
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import DEPLOYMENTS, JOBS, PODS, REPLICASETS
from modelyard.control.render import kube_pod, kube_workload
from modelyard.control.render.kube_pod import PodSettings
from modelyard.control.render.kube_workload import Around

logger = logging.getLogger(__name__)
Object = dict[str, Any]
Template = Callable[[Unit | Task], Object | None]
"""The pod template that was recorded for a unit or task; None: none was."""


class KubeDriver:
    """Run `run` beside it; `synced` is set when observations are complete. `follow` may run for long before that.

    place: what holds for all pods. recorded: see Template. owner: the stored object of a key, None if it is gone.
    unit_secret: what those who serve requests demand of the gateway. compared: units that get copies of requests, whose
    reports tell what came of comparing.
    """

    def __init__(
        self,
        client: Client,
        *,
        place: PodSettings,
        recorded: Template,
        owner: Callable[[Key], Object | None],
        unit_secret: UnitSecret = unit_secrets.none,
        clock: Clock | None = None,
        compared: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self.synced = asyncio.Event()
        self._place = place
        self._recorded = recorded
        self._owner = owner
        self._unit_secret = unit_secret
        self._clock = clock or SystemClock()
        self._hints = Hints()
        self._followed = False
        self._acts = False
        self._index = Index(self._changed)
        self._looks = Looks(client, self._index, self._clock, compared)
        self._refused = Refused(self._hints.add, self._clock)
        self._writes = Writes(client, self._index)
        self._gangs = Gangs(self._writes, self._index, self._clock)
        ours = f"{names.LABEL_MANAGED_BY}={names.MANAGER},{names.LABEL_NAME}={names.POD_NAME}"
        streams = f"{ours},{names.LABEL_STREAM}"  # not the ReplicaSets that Deployments make
        self._reflectors = {
            "Deployment": Reflector(client, DEPLOYMENTS, clock=self._clock, label_selector=ours),
            "ReplicaSet": Reflector(client, REPLICASETS, clock=self._clock, label_selector=streams),
            "Job": Reflector(client, JOBS, clock=self._clock, label_selector=ours),
        }
        self._pods = Reflector(client, PODS, clock=self._clock, label_selector=ours)
        for kind, reflector in self._reflectors.items():
            reflector.add_handler(self._index.workload_handler(kind))
        self._pods.add_handler(self._index.pod_handler)

    @property
    def capabilities(self) -> Capabilities:
        """The kubelet enforces limits; processes share no cache, so they fetch."""
        return Capabilities(enforces=frozenset({"memory", "cpu"}), supports=frozenset({"image", "pod"}), fetches=True)

    async def follow(self) -> None:
        """Take up what is stored until cancelled, and do nothing about it."""
        self._followed = True
        async with asyncio.TaskGroup() as group:
            for reflector in (*self._reflectors.values(), self._pods):
                group.create_task(reflector.run())

    async def run(self) -> None:
        """Ask and act until cancelled; `follow` as well, where nobody runs that yet."""
        async with asyncio.TaskGroup() as group:
            if not self._followed:
                group.create_task(self.follow())
            self._acts = True
            await asyncio.gather(*(each.confirm() for each in (*self._reflectors.values(), self._pods)))
            group.create_task(self._looks.run())
            group.create_task(self._refused.run())
            group.create_task(self._gangs.run())
            await self._looks.first.wait()
            self.synced.set()

    def observe(self, owner: Key | None = None) -> Observed:
        """What runs now, from memory. Usage is what pods of jobs, streams and tasks tell themselves, some seconds old:
        Kubernetes' metrics are not everywhere."""
        return self._refused.add_to(self._index.observed(owner, self._looks.facts()), owner)

    def hints(self) -> AsyncIterator[Key]:
        """Owners of what changed."""
        return self._hints.stream()

    def template(self, what: Unit | Task) -> Object:
        """The pod template of what is recorded now."""
        secret = self._unit_secret(what.name) if isinstance(what, Unit) and what.work.serve is not None else ""
        digest = hashlib.sha256(secret.encode()).hexdigest() if secret else ""
        return kube_pod.template(what, self._place, digest)

    def rendered(self, revision: Recorded) -> Object:
        """The pod template to record with a new revision: what `recorded` gives back for all time."""
        return self.template(revision.unit if isinstance(revision, Revision) else revision.task)

    def _changed(self, owner: Key) -> None:
        """Nobody takes hints before anything is done, and then everything is looked at."""
        if self._acts:
            self._hints.add(owner)

    async def apply(self, action: Action) -> None:
        """As in `Driver`."""
        match action:
            case Start():
                await self._start(action)
            case Resize():
                await self._resize(action)
            case Stop():
                await self._stop(action)
            case Run():
                await self._run(action)
            case Adjust():
                await self._adjust(action)
            case Forget():
                await self._forget(action)

    async def _start(self, action: Start) -> None:
        what = action.unit
        present = self._index.unit(what.name)
        stopping = present is not None and observe.is_going(present[1])
        rules.check_start(action, present[0] if present else None, stopping=stopping)
        if stopping:
            raise RetryLater(f"unit {what.name}: its pods are still draining")
        if present is None:
            with self._refused.instead_of(action):
                await self._writes.create(what, kube_workload.unit(what, self._around(what)))
            if self._index.unit(what.name) is None:
                return  # refused: told as a trouble
        await self._resize(Resize(unit=what.name, owner=what.owner, replicas=action.replicas, begun=action.begun))

    async def _resize(self, action: Resize) -> None:
        present = self._index.unit(action.unit)
        rules.check_resize(action, present[0] if present else None)
        if present is None:
            return
        what, held, kind = present
        if observe.is_going(held):
            raise RetryLater(f"unit {action.unit}: its pods are still draining")
        asked = observe.asked_for(held)
        follows = what.work.stream is not None
        if (asked, observe.begun(held)) == (action.replicas, action.begun if follows else ()):
            return
        if action.replicas and not asked:
            # Before its first pod, so that none ever runs without them.
            for each in kube_workload.companions(
                what, {**held, "apiVersion": "apps/v1", "kind": kind}, self._place.namespace
            ):
                await self._writes.apply(each)
        told = (rules.told(what.work, action.begun), action.begun) if follows else None
        await self._writes.patch(kind, held, kube_workload.resize(held, action.replicas, told))

    async def _stop(self, action: Stop) -> None:
        self._refused.forget(action.unit, action.owner)
        present = self._index.unit(action.unit)
        if present is None:
            return
        what, held, kind = present
        rules.check_owner(f"unit {action.unit}", what.owner, action.owner)
        if not observe.is_going(held):
            await self._writes.delete(kind, held)

    async def _run(self, action: Run) -> None:
        rules.check_run(action)
        what = action.task
        present = self._index.task(what.name)
        if present is not None:
            if observe.is_going(present[1]):
                raise RetryLater(f"task {what.name}: an earlier one of the same name is still ending")
            return
        around = self._around(what)
        with self._refused.instead_of(action):
            attempt = 1
            for each in kube_workload.job_companions(what, around.owner, self._place.namespace):
                attempt = max(attempt, attempt_of(await self._writes.apply(each)))
            await self._writes.create(what, kube_workload.job(what, around, attempt))

    async def _adjust(self, action: Adjust) -> None:
        present = self._index.task(action.task)
        going = present is not None and observe.is_going(present[1])
        rules.check_adjust(action, present[0] if present else None, forgotten=going)
        if present is not None and observe.asked_for(present[1]) != action.parallelism:
            what, held = present
            await self._writes.patch("Job", held, kube_workload.adjust(held, what, action.parallelism))

    async def _forget(self, action: Forget) -> None:
        self._refused.forget(action.task, action.owner)
        present = self._index.task(action.task)
        if present is None:
            return
        what, held = present
        rules.check_owner(f"task {action.task}", what.owner, action.owner)
        if not observe.is_going(held):
            await self._writes.delete("Job", held)

    def _around(self, what: Unit | Task) -> Around:
        owner = self._owner(what.owner)
        if owner is None:
            raise RetryLater(f"{what.name}: {what.owner} is not there any more")
        return Around(template=self._recorded(what) or self.template(what), owner=owner)
