"""What decides, put together: the loop, and what holds for the gateway. The same on a laptop and in a cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard.api import settings
from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError
from modelyard.control.engine.loop import Engine
from modelyard.control.engine.ports import Driver, Gateway
from modelyard.control.engine.standing import Place, StandingWatch
from modelyard.control.engine.writer import RESOURCES, Writer
from modelyard.control.gateway.issuer_keys import IssuerKeys
from modelyard.control.ir import names
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.queue import WorkQueue
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import ACCESS, CONFIGMAPS, CONTROLLERREVISIONS
from modelyard.control.plan.platform import Standing
from modelyard.control.render import kube

Object = dict[str, Any]


class ServingGateway(Gateway, Protocol):
    """A gateway that says where it is, and when callers show tokens whose keys nobody knows."""

    @property
    def url(self) -> str: ...

    async def report_unknown_keys(self, told: Callable[[], None]) -> None: ...

    async def metrics(self, model: str = "") -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What the loop reads. objects, rules: by kind. Nobody runs them but the loop."""

    objects: Mapping[str, Reflector]
    rules: Mapping[str, Reflector]
    revisions: Reflector


def watched(client: Client, clock: Clock) -> Watched:
    """All namespaces."""
    ours = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"
    return Watched(
        objects={kind: Reflector(client, resource, clock=clock) for kind, resource in RESOURCES.items()},
        rules={each.kind: Reflector(client, each, clock=clock) for each in ACCESS},
        revisions=Reflector(client, CONTROLLERREVISIONS, clock=clock, label_selector=ours, kept=kube.packed),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What the place gives. secrets, configmaps: reflectors of the system namespace at least. Somebody runs them, and
    recorder.

    keys: of the issuers of the settings; nobody runs it yet. place: see StandingWatch. hinted: called when a token
    names a key that nobody knows. fetched: when keys of issuers are new. changes: what is done with a new standing,
    around telling the loop.
    """

    client: Client
    clock: Clock
    watched: Watched
    writer: Writer
    recorder: EventRecorder
    driver: Driver
    gateway: ServingGateway
    secrets: Reflector
    configmaps: Reflector
    keys: IssuerKeys
    place: Callable[[], Place]
    hinted: Callable[[], None] = lambda: None
    fetched: Callable[[], None] = lambda: None
    changes: Callable[[Callable[[], None]], None] = lambda change: change()
    queue: WorkQueue[Key] = field(default_factory=WorkQueue)


def configmaps(client: Client, clock: Clock) -> Reflector:
    """Of the system namespace, where settings lie."""
    return Reflector(client, CONFIGMAPS, clock=clock, namespace=settings.NAMESPACE)


def engine(parts: Parts) -> Engine:
    """The loop; `decide` runs it."""
    return Engine(
        objects=parts.watched.objects,
        rules=parts.watched.rules,
        revisions=parts.watched.revisions,
        writer=parts.writer,
        driver=parts.driver,
        gateway=parts.gateway,
        queue=parts.queue,
        clock=parts.clock,
        gateway_url=lambda: parts.gateway.url,
    )


async def decide(stack: AsyncExitStack, parts: Parts, loop: Engine) -> StandingWatch:
    """Begin: first what holds for the gateway, then the loop. The stack ends both."""
    watch = StandingWatch(
        client=parts.client,
        configmaps=parts.configmaps,
        secrets=parts.secrets,
        keys=parts.keys,
        recorder=parts.recorder,
        clock=parts.clock,
        place=parts.place,
        stand=lambda standing: parts.changes(_standing(loop, standing)),
    )

    def changed() -> None:
        watch.look_again()
        parts.fetched()

    parts.keys.changed = changed

    def hint() -> None:
        parts.keys.hint()
        parts.hinted()

    await stack.enter_async_context(tasks(parts.keys.run(), parts.gateway.report_unknown_keys(hint)))
    await watch.begin()
    await stack.enter_async_context(tasks(watch.run(), loop.run()))
    return watch


def _standing(loop: Engine, standing: Standing) -> Callable[[], None]:
    return lambda: loop.stand(standing)


@asynccontextmanager
async def tasks(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run in the background until left. What fails there cancels the block and is raised from it."""
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in started:
                task.cancel()


def told(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a person must know of several failures: the first sentence, else the first defect."""
    flat = list(_leaves(group))
    return next((each for each in flat if isinstance(each, ModelyardError)), flat[0])


def _leaves(error: BaseException) -> Any:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
