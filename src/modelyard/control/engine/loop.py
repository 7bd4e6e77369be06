"""The one reconcile loop: read everything -> desire -> diff -> apply -> write the status.

Level-triggered: watch events, driver hints and gateway hints only say where to look again. One worker per object at a
time; failures are tried again with growing pauses, per object.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
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
from modelyard.control.engine.objects import Objects
from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.engine.publisher import Publisher
from modelyard.control.engine.writer import Writer
from modelyard.control.ir.access import OPEN
from modelyard.control.ir.observed import Observed
from modelyard.control.ir.values import Key
from modelyard.control.kube.queue import WorkQueue
from modelyard.control.kube.reflector import Reflector
from modelyard.control.plan import access_policy, job, revision, runtimes, service, stream, stream_clean
from modelyard.control.plan import model as models
from modelyard.control.plan.diff import diff
from modelyard.control.plan.happenings import happenings
from modelyard.control.plan.unable import leave_alone
from modelyard.control.plan.views import (
    Event,
    GoingStreamView,
    JobView,
    ModelView,
    Outcome,
    ServiceView,
    StreamView,
)

log = logging.getLogger(__name__)
Object = dict[str, Any]
_WORKERS = 8
_NUMBERS_SECONDS = 2.0
"""Numbers that change all the time are written to a status as often as that."""
_MOMENT = 0.001


@dataclass(slots=True)
class Counters:
    """Cumulative, for /metrics."""

    reconciles: int = 0
    failures: int = 0
    seconds: float = 0.0


class Engine:
    """Runs until cancelled. `gateway_url` is what statuses tell callers."""

    def __init__(  # noqa: PLR0913  the composition root hands every part over by name
        self,
        *,
        objects: dict[str, Reflector],
        revisions: Reflector,
        writer: Writer,
        driver: Driver,
        gateway: Gateway,
        queue: WorkQueue[Key],
        clock: Clock,
        gateway_url: str,
    ) -> None:
        self.counters = Counters()
        self._objects = Objects()
        self._reflectors = objects
        self._revisions = revisions
        self._writer = writer
        self._driver = driver
        self._gateway = gateway
        self._queue = queue
        self._clock = clock
        self._gateway_url = gateway_url
        self._publisher = Publisher(driver, gateway)
        self._unseen: set[Key] | None = None
        self._before: dict[Key, Observed] = {}
        self._written: dict[Key, float] = {}

    async def run(self) -> None:
        """Watch, decide and act until cancelled."""
        for kind, reflector in self._reflectors.items():
            reflector.add_handler(self._object_handler(kind))
        self._revisions.add_handler(self._revision_handler)
        async with asyncio.TaskGroup() as group:
            for reflector in (*self._reflectors.values(), self._revisions):
                group.create_task(reflector.run())
            group.create_task(self._look_again(self._driver.hints(), endpoints_changed=True))
            group.create_task(self._look_again(self._gateway.hints(), endpoints_changed=False))
            group.create_task(self._publisher.run())
            for reflector in (*self._reflectors.values(), self._revisions):
                await reflector.synced.wait()
            self._first_pass()
            for _ in range(_WORKERS):
                group.create_task(self._work())

    def _first_pass(self) -> None:
        """Everything declared, and owners of what runs although its object is gone."""
        observed = self._driver.observe()
        running = {each.unit.owner for each in observed.units} | {each.owner for each in observed.tasks}
        self._unseen = {*self._objects.keys(), *running}
        for key in sorted(self._unseen):
            self._queue.add(key)
        if not self._unseen:
            self._publisher.open()

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
            self._written.pop(key, None)
        elif outcome.held is False:
            await self._writer.release(owner)
            self._tell(owner, outcome.events)
        elif not unmade and not self._writer.is_behind(owner):
            later = await self._write_status(key, owner, outcome)
            self._tell(owner, (*happenings(self._before.get(key, Observed()), observed), *outcome.events))
            self._tell(owner, _defects(refused))
            self._remember(key, observed)
        if unwritten or refused:
            raise (*unwritten, *refused)[0]
        return min((each for each in (outcome.wake_at, later) if each is not None), default=None)

    async def _write_status(self, key: Key, owner: Object, outcome: Outcome) -> float | None:
        """-> when to look again, where numbers were left for later."""
        now = self._clock.monotonic()
        left = self._written.get(key, float("-inf")) + _NUMBERS_SECONDS - now
        # Seconds since 1970 are not exact: what is due within a moment is due.
        if outcome.numbers_only and left > _MOMENT and outcome.status != owner.get("status"):
            return self._clock.now() + left
        if await self._writer.write_status(owner, outcome):
            self._written[key] = now
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
            return stream_clean.desire(self._going_stream_view(key, observed), self._clock.now())
        if key in self._objects.unreadable:
            return self._unable(key, observed, Reason.INVALID, self._objects.unreadable[key])
        return self._plan(key, None if self._objects.going(key) else self._objects.declared.get(key), observed)

    def _plan(  # noqa: PLR0911  one for each kind
        self, key: Key, thing: Declared | None, observed: Observed
    ) -> Outcome:
        now = self._clock.now()
        match thing:
            case Runtime():
                return runtimes.desire(thing, now)
            case Model():
                runtimes_here = self._objects.runtimes(key.namespace)
                return models.desire(ModelView(model=thing, runtimes=runtimes_here, observed=observed), now)
            case ModelService():
                return service.desire(self._service_view(key, thing, observed), now)
            case ModelJob():
                return job.desire(self._job_view(key, thing, observed), now)
            case ModelStream():
                return stream.desire(self._stream_view(key, thing, observed), now)
            case AccessPolicy():
                return access_policy.desire(thing, now)
            case _:
                return service.desire_deleted(observed, self._gateway.observe(key))

    def _service_view(self, key: Key, thing: ModelService, observed: Observed) -> ServiceView:
        return ServiceView(
            service=thing,
            models=self._objects.models_for(thing),
            runtimes=self._objects.runtimes(key.namespace),
            revisions=self._objects.revisions(key),
            observed=observed,
            route=self._gateway.observe(key),
            in_transit=self._publisher.in_transit(key),
            capabilities=self._driver.capabilities,
            gateway_url=self._gateway_url,
            access=OPEN,
        )

    def _job_view(self, key: Key, thing: ModelJob, observed: Observed) -> JobView:
        return JobView(
            job=thing,
            models=self._objects.models_for(thing),
            runtimes=self._objects.runtimes(key.namespace),
            revision=self._objects.job_revision(key),
            observed=observed,
            capabilities=self._driver.capabilities,
        )

    def _stream_view(self, key: Key, thing: ModelStream, observed: Observed) -> StreamView:
        return StreamView(
            stream=thing,
            models=self._objects.models_for(thing),
            runtimes=self._objects.runtimes(key.namespace),
            revisions=self._objects.revisions(key),
            observed=observed,
            capabilities=self._driver.capabilities,
        )

    def _going_stream_view(self, key: Key, observed: Observed) -> GoingStreamView:
        thing = self._objects.declared.get(key)
        return GoingStreamView(
            key=key,
            stored=self._objects.raw[key],
            stream=thing if isinstance(thing, ModelStream) else None,
            revisions=self._objects.revisions(key),
            observed=observed,
        )

    def _unable(self, key: Key, observed: Observed, reason: Reason, message: str) -> Outcome:
        raw, route = self._objects.raw[key], self._gateway.observe(key)
        return leave_alone(raw, observed, route, reason=reason, message=message, now=self._clock.now())

    def _saw(self, key: Key) -> None:
        if self._unseen:
            self._unseen.discard(key)
            if not self._unseen:
                self._publisher.open()

    def _tell(self, owner: Object, events: Iterable[Event]) -> None:
        for event in events:
            self._writer.tell(owner, event)

    def _remember(self, key: Key, observed: Observed) -> None:
        """What was told about replicas and members of tasks."""
        if observed.units or observed.tasks:
            self._before[key] = observed
        else:
            self._before.pop(key, None)

    async def _look_again(self, hints: AsyncIterator[Key], *, endpoints_changed: bool) -> None:
        async for key in hints:
            if endpoints_changed and key.kind == revision.KIND:  # nobody else answers requests
                self._publisher.look_again()
            self._queue.add(key)

    def _object_handler(self, kind: str) -> Any:
        def handle(key: tuple[str, str], _old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
            body = None if new is None else {"apiVersion": API_VERSION, "kind": kind, **new}
            for concerned in self._objects.put(kind, *key, body):
                self._queue.add(concerned)

        return handle

    def _revision_handler(self, key: tuple[str, str], _old: Any, new: dict[str, Any] | None) -> None:
        for owner in self._objects.put_revision(*key, new):
            self._queue.add(owner)


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
