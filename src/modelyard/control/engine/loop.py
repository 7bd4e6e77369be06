"""The one reconcile loop: read everything -> desire -> diff -> apply -> write the status.

Level-triggered: watch events, driver hints and gateway hints only say where to look again. One worker per object at a
time; failures are tried again with growing pauses, per object.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.api import API_VERSION
from modelyard.api.access import AccessPolicy
from modelyard.api.job import ModelJob
from modelyard.api.load import Declared
from modelyard.api.model import Model
from modelyard.api.runtime import Runtime
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.base.clock import Clock
from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater
from modelyard.control.engine.grants import Grants
from modelyard.control.engine.looks import Looks
from modelyard.control.engine.objects import Objects
from modelyard.control.engine.patience import Patience
from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.engine.publisher import Publisher
from modelyard.control.engine.writer import Writer
from modelyard.control.ir.observed import Observed, ObservedRoute
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.values import Key
from modelyard.control.kube.queue import WorkQueue
from modelyard.control.kube.reflector import Reflector
from modelyard.control.plan import access_policy, job, revision, runtimes, service, stream, stream_clean
from modelyard.control.plan import model as models
from modelyard.control.plan.diff import diff
from modelyard.control.plan.happenings import happenings
from modelyard.control.plan.platform import Standing
from modelyard.control.plan.unable import leave_alone
from modelyard.control.plan.views import Event, Outcome

log = logging.getLogger(__name__)
Object = dict[str, Any]
_WORKERS = 8
_SHORTEST_REST_SECONDS = 0.05
"""Between two times that all grants are turned round; longer when that took longer."""


@dataclass(slots=True)
class Counters:
    """Cumulative, for /metrics."""

    reconciles: int = 0
    failures: int = 0
    seconds: float = 0.0


class Engine:
    """Runs until cancelled. `gateway_url` is what statuses tell callers; it may change with what `stand` is told.

    rules: reflectors of roles, bindings and ServiceAccounts by kind. No route is published before they were read and
    `stand` was called.
    """

    def __init__(  # noqa: PLR0913  the composition root hands every part over by name
        self,
        *,
        objects: Mapping[str, Reflector],
        rules: Mapping[str, Reflector],
        revisions: Reflector,
        writer: Writer,
        driver: Driver,
        gateway: Gateway,
        queue: WorkQueue[Key],
        clock: Clock,
        gateway_url: Callable[[], str],
    ) -> None:
        self.counters = Counters()
        self._objects = Objects()
        self._reflectors = objects
        self._rules = rules
        self._revisions = revisions
        self._writer = writer
        self._driver = driver
        self._gateway = gateway
        self._queue = queue
        self._clock = clock
        self._gateway_url = gateway_url
        self._grants = Grants()
        self._publisher = Publisher(driver, gateway, self._grants.access)
        self._looks = Looks(
            objects=self._objects,
            grants=self._grants,
            publisher=self._publisher,
            driver=driver,
            gateway=gateway,
            gateway_url=gateway_url,
        )
        self._followed = False
        self._decides = False
        self._unseen: set[Key] | None = None
        self._platform: Platform | None = None
        self._looked: dict[Key, ObservedRoute] = {}
        self._before: dict[Key, Observed] = {}
        self._patience = Patience()

    async def follow(self) -> None:
        """Take up everything that is declared until cancelled, and do nothing about it."""
        self._followed = True
        for kind, reflector in self._reflectors.items():
            reflector.add_handler(self._object_handler(kind))
        self._revisions.add_handler(self._revision_handler)
        self._grants.follow(self._rules)
        async with asyncio.TaskGroup() as group:
            for reflector in self._everything():
                group.create_task(reflector.run())

    async def run(self) -> None:
        """Decide and act until cancelled, from what is declared now; `follow` as well, where nobody runs that yet."""
        async with asyncio.TaskGroup() as group:
            if not self._followed:
                group.create_task(self.follow())
            group.create_task(self._look_again())
            group.create_task(self._look_at_routes_again())
            group.create_task(self._publisher.run())
            # What was followed for long may be old without anybody having noticed.
            await asyncio.gather(*(each.confirm() for each in self._everything()))
            group.create_task(self._keep_grants())
            self._first_pass()
            for _ in range(_WORKERS):
                group.create_task(self._work())

    def _everything(self) -> tuple[Reflector, ...]:
        return (*self._reflectors.values(), *self._rules.values(), self._revisions)

    def stand(self, standing: Standing) -> None:
        """Make this what holds for the platform, and return. Before the first call nobody may call anything."""
        self._grants.stand(standing)
        self._configure()

    def _configure(self) -> None:
        platform = self._grants.platform
        if platform is not None and platform != self._platform:
            before = self._gateway_url()
            self._platform = platform
            self._gateway.configure(platform)
            if self._gateway_url() != before:
                keys = self._objects.keys()
                for key in keys:
                    self._queue.add(key)

    async def _keep_grants(self) -> None:
        """All services at once, without looking at each: that would take a hundred times as long."""
        stood: Standing | None = None
        while True:
            await self._grants.changed.wait()
            self._grants.changed.clear()
            began = self._clock.monotonic()
            self._configure()
            if self._grants.are_stale:
                anywhere, stood = self._grants.standing != stood, self._grants.standing
                await self._regrant(anywhere=anywhere)
            await self._clock.sleep(max(_SHORTEST_REST_SECONDS, 2 * (self._clock.monotonic() - began)))

    async def _regrant(self, *, anywhere: bool) -> None:
        """anywhere: all AccessPolicies may have something else to say, and not only those about what has changed."""
        concerned: set[tuple[str, str]] | None = None
        try:
            concerned = self._grants.renew()
        except Exception:
            log.exception("nobody may call anything: a defect of Modelyard; tried again with the next change")
        changed = await self._publisher.regrant(None if concerned is None else self._objects.meant(concerned))
        self._open_when_known()
        for key in self._objects.policies(None if anywhere else {each.namespace for each in changed}):
            self._queue.add(key)

    def _open_when_known(self) -> None:
        """Every object was looked at, and who may call it is known."""
        if self._unseen is not None and not self._unseen and self._grants.are_known:
            self._publisher.open()
            log.info("everything was looked at")
            self._unseen = None

    def _first_pass(self) -> None:
        """Everything declared, and owners of what runs although its object is gone."""
        self._decides = True
        observed = self._driver.observe()
        running = {each.unit.owner for each in observed.units} | {each.owner for each in observed.tasks}
        self._unseen = {*self._objects.keys(), *running}
        log.info("everything that is declared is known; objects to be looked at: %d", len(self._unseen))
        for key in sorted(self._unseen):
            self._queue.add(key)
        self._open_when_known()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._reconcile(key)
            finally:
                self._queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        started = self._clock.monotonic()
        try:
            wake_at = await self._step(key)
        except RetryLater as error:
            self.counters.failures += 1
            log.info("%s: %s", key, error)
            self._queue.retry(key)
        except ModelyardError as error:
            self.counters.failures += 1
            log.warning("%s: %s", key, error)
            self._queue.retry(key)
        except Exception:
            self.counters.failures += 1
            log.exception("%s: a defect of Modelyard; the object is looked at again later", key)
            self._queue.retry(key)
        else:
            self._queue.forget(key)
            if wake_at is not None:
                self._queue.add_after(key, max(0.0, wake_at - self._clock.now()))
        finally:
            self.counters.reconciles += 1
            self.counters.seconds += self._clock.monotonic() - started

    async def _step(self, key: Key) -> float | None:
        observed = self._driver.observe(key)
        owner = self._objects.raw.get(key)
        try:
            outcome = self._decide(key, observed)
        except Exception as error:
            self._publisher.hold(key)
            self._saw(key)
            await self._confess(key, observed, error)
            raise
        self._look(key)
        self._publisher.offer(key, outcome.desired.routes)
        self._saw(key)
        # What is refused must not keep the rest from being done, nor the status from being written.
        unwritten = [] if owner is None else await _refusal(self._writer.write_children(owner, outcome))
        refused = [
            error for action in diff(outcome.desired, observed) for error in await _refusal(self._driver.apply(action))
        ]
        # A status that names a Model is written once there is that Model: nobody asks for it again afterwards.
        unmade = outcome.made is not None and bool(unwritten)
        later = None
        if owner is None:
            self._before.pop(key, None)
            self._patience.forget(key)
        elif outcome.held is False:
            await self._writer.release(owner)
            self._tell(owner, (*outcome.happened, *outcome.events))
        elif not unmade and not self._writer.is_behind(owner):
            later = await self._write_status(key, owner, outcome, must=bool(unwritten or refused))
            said = outcome.happened if later else (*outcome.happened, *outcome.events)
            self._tell(owner, (*happenings(self._before.get(key, Observed()), observed), *said))
            self._tell(owner, _defects(refused))
            self._remember(key, observed)
        if unwritten or refused:
            raise (*unwritten, *refused)[0]
        return min((each for each in (outcome.wake_at, later) if each is not None), default=None)

    async def _write_status(self, key: Key, owner: Object, outcome: Outcome, *, must: bool) -> float | None:
        """-> when to look again, where it waits. must: it cannot wait."""
        now = self._clock.monotonic()
        if outcome.status is None or outcome.status == owner.get("status"):
            self._patience.settled(key)
            return None
        left = 0.0 if must else self._patience.left(key, outcome, now)
        if left:
            return self._clock.now() + left
        if await self._writer.write_status(owner, outcome):
            self._patience.wrote(key, now)
        return None

    async def _confess(self, key: Key, observed: Observed, error: Exception) -> None:
        """Tell the object's owner about a defect; the log has the rest."""
        owner = self._objects.raw.get(key)
        if owner is None:
            return
        message = f"a defect of Modelyard: {error!r}; the server's log has the details"
        try:
            await self._writer.write_status(owner, self._unable(key, observed, Reason.INTERNAL_ERROR, message))
        except ModelyardError as problem:
            log.info("%s: %s", key, problem)

    def _decide(self, key: Key, observed: Observed) -> Outcome:
        if key.kind == stream.KIND and self._objects.going(key):
            return stream_clean.desire(self._looks.going(key, observed), self._clock.now())
        if key in self._objects.unreadable:
            return self._unable(key, observed, Reason.INVALID, self._objects.unreadable[key])
        return self._plan(key, None if self._objects.going(key) else self._objects.declared.get(key), observed)

    def _plan(  # noqa: PLR0911  one for each kind
        self, key: Key, thing: Declared | None, observed: Observed
    ) -> Outcome:
        now = self._clock.now()
        match thing:
            case Runtime():
                return runtimes.desire(thing, self._driver.capabilities, now)
            case Model():
                return models.desire(self._looks.model(key, thing, observed), now)
            case ModelService():
                return service.desire(self._looks.service(key, thing, observed), now)
            case ModelJob():
                return job.desire(self._looks.job(key, thing, observed), now)
            case ModelStream():
                return stream.desire(self._looks.stream(key, thing, observed), now)
            case AccessPolicy():
                return access_policy.desire(self._looks.policy(thing), now)
            case _:
                return service.desire_deleted(observed, self._gateway.observe(key))

    def _unable(self, key: Key, observed: Observed, reason: Reason, message: str) -> Outcome:
        raw, route = self._objects.raw[key], self._gateway.observe(key)
        return leave_alone(raw, observed, route, reason=reason, message=message, now=self._clock.now())

    def _saw(self, key: Key) -> None:
        if self._unseen:
            self._unseen.discard(key)
            self._open_when_known()

    def _tell(self, owner: Object, events: Iterable[Event]) -> None:
        for event in events:
            self._writer.tell(owner, event)

    def _remember(self, key: Key, observed: Observed) -> None:
        """What was told about replicas and members of tasks."""
        if observed.units or observed.tasks:
            self._before[key] = observed
        else:
            self._before.pop(key, None)

    async def _look_again(self) -> None:
        async for key in self._driver.hints():
            if key.kind == revision.KIND:  # nobody else answers requests
                self._publisher.look_again(key)
            self._queue.add(key)

    async def _look_at_routes_again(self) -> None:
        """Only where more than the access has changed: ten thousand services may get another one at once."""
        async for key in self._gateway.hints():
            if key not in self._looked or self._looked[key] != _without_access(self._gateway.observe(key)):
                self._queue.add(key)

    def _look(self, key: Key) -> None:
        """Remember what is in force while nothing else may come to be."""
        seen = self._gateway.observe(key)
        if seen.acknowledged is not None and all(each == seen.acknowledged for each in self._publisher.in_transit(key)):
            self._looked[key] = _without_access(seen)
        else:
            self._looked.pop(key, None)

    def _object_handler(self, kind: str) -> Any:
        def handle(key: tuple[str, str], _old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
            body = None if new is None else {"apiVersion": API_VERSION, "kind": kind, **new}
            self._concern(self._objects.put(kind, *key, body))
            if kind == AccessPolicy.__name__:
                at = Key(kind=kind, namespace=key[0], name=key[1])
                thing = self._objects.declared.get(at)
                self._grants.put_policy(at, thing if isinstance(thing, AccessPolicy) else None, body)

        return handle

    def _revision_handler(self, key: tuple[str, str], _old: Any, new: dict[str, Any] | None) -> None:
        self._concern(self._objects.put_revision(*key, new))

    def _concern(self, keys: Iterable[Key]) -> None:
        """Nobody takes them while nothing is decided, and the first pass is about everything."""
        if self._decides:
            for key in keys:
                self._queue.add(key)


def _without_access(seen: ObservedRoute) -> ObservedRoute:
    return ObservedRoute(acknowledged=seen.acknowledged and seen.acknowledged.for_anybody, rejected=seen.rejected)


async def _refusal(work: Awaitable[None]) -> list[ModelyardError]:
    """None or one."""
    try:
        await work
    except ModelyardError as error:
        return [error]
    return []


def _defects(refusals: Iterable[ModelyardError]) -> tuple[Event, ...]:
    """What a driver refuses for good was planned wrongly."""
    return tuple(
        Event(type="Warning", reason=Reason.INTERNAL_ERROR, message=refusal.message)
        for refusal in refusals
        if not isinstance(refusal, RetryLater)
    )
