"""What the operator that leads runs: the driver of pods, the gateways, and the loop that decides."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from modelyard.api import settings
from modelyard.base.clock import Clock, SystemClock
from modelyard.control.drivers.kube.driver import KubeDriver
from modelyard.control.drivers.kube.recorded import templates
from modelyard.control.engine.loop import Engine
from modelyard.control.engine.ports import Driver
from modelyard.control.engine.writer import Writer
from modelyard.control.gateway.issuer_keys import IssuerKeys
from modelyard.control.gateway.remote import Identity, RemoteGateway
from modelyard.control.ir import unit_secret as unit_secrets
from modelyard.control.ir.revision import JobRevision, Recorded
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.unit_secret import UnitSecret
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import SECRETS
from modelyard.server import deciding, metrics
from modelyard.server.cluster_accounts import ClusterAccounts
from modelyard.server.deciding import Parts, ServingGateway, Watched, tasks
from modelyard.server.kept_keys import KeptKeys
from modelyard.server.operator_options import Options
from modelyard.server.status_pages import Page
from modelyard.server.system_pods import SystemPods
from modelyard.server.system_secrets import SystemSecrets

log = logging.getLogger(__name__)
Object = dict[str, Any]
_KEYS_SECONDS = 10.0
"""For the keys of ServiceAccounts, before anything is told to gateways."""


class PodDriver(Driver, Protocol):
    """Runs units and tasks as pods. template: what is recorded with a revision. follow: all it does before `run`."""

    synced: asyncio.Event

    async def follow(self) -> None: ...

    async def run(self) -> None: ...

    def template(self, what: Unit | Task) -> Object: ...


class RemoteGateways(ServingGateway, Protocol):
    """Any number of gateways that connect while the `async with` block runs."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: Any) -> None: ...

    def expect(self, ready: Collection[str], leaving: Collection[str]) -> None: ...

    def stop_serving(self) -> None: ...

    @property
    def compared(self) -> Collection[str]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What driver and gateways are made from. identity: what is shown to gateways, and whom they must be signed by.

    compared: units that compare answers to copies of requests, once there are gateways.
    """

    options: Options
    client: Client
    clock: Clock
    watched: Watched
    unit_secret: UnitSecret
    identity: Callable[[], Identity]
    compared: Callable[[], Collection[str]]


def pods(ground: Ground) -> PodDriver:
    """The driver of a cluster."""
    objects = ground.watched.objects

    def owner(key: Key) -> Object | None:
        reflector = objects.get(key.kind)
        return reflector.cache.get((key.namespace, key.name)) if reflector else None

    return KubeDriver(
        ground.client,
        place=ground.options.pods,
        recorded=templates(ground.watched.revisions.cache),
        owner=owner,
        unit_secret=ground.unit_secret,
        clock=ground.clock,
        compared=ground.compared,
    )


def gateways(ground: Ground) -> RemoteGateways:
    """The gateways of a cluster."""
    return RemoteGateway(
        listen=ground.options.xds,
        identity=ground.identity,
        clock=ground.clock,
        secret=ground.unit_secret,
        address=lambda: ground.options.gateway,
        internal_address=ground.options.internal_gateway,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Seams:
    """What makes driver and gateways."""

    driver: Callable[[Ground], PodDriver] = pods
    gateways: Callable[[Ground], RemoteGateways] = gateways


Stopping = Callable[[Callable[[], None]], None]
"""Is given what must be done first of all when the lead is lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """Everything that a leader needs, made and followed, but nothing of it begun."""

    ground: Ground
    own: SystemSecrets
    system: SystemPods
    driver: PodDriver
    gateway: RemoteGateways
    accounts: ClusterAccounts
    kept: KeptKeys
    parts: Parts
    loop: Engine


@asynccontextmanager
async def standing_by(options: Options, client: Client, seams: Seams) -> AsyncIterator[Ready]:
    """Follow everything that a leader decides on until left, so that whoever leads next begins with warm caches.

    Only reads. client: its guard lets only the leader write.
    """
    ready = _ready(options, client, seams)
    own = (ready.parts.secrets, ready.parts.configmaps, ready.system.reflector)
    followed = (*(each.run() for each in own), ready.driver.follow(), ready.loop.follow(), ready.accounts.keys.run())
    async with tasks(*followed):
        yield ready


def _ready(options: Options, client: Client, seams: Seams) -> Ready:
    clock = SystemClock()
    recorder = EventRecorder(client, "modelyard", clock)
    secrets = Reflector(client, SECRETS, clock=clock, namespace=settings.NAMESPACE)
    own = SystemSecrets(client, secrets, settings.NAMESPACE, clock)
    ground = Ground(
        options=options,
        client=client,
        clock=clock,
        watched=deciding.watched(client, clock),
        unit_secret=lambda unit: unit_secrets.unit_secret(own.gateway_key, unit),
        identity=own.identity,
        compared=lambda: gateway.compared,
    )
    gateway = seams.gateways(ground)
    driver = seams.driver(ground)
    accounts = ClusterAccounts(client, options.data / "accounts", clock)
    kept = KeptKeys(client, settings.NAMESPACE, options.data / "issuers", clock)
    parts = Parts(
        client=client,
        clock=clock,
        watched=ground.watched,
        writer=Writer(client, recorder, rendered=lambda revision: driver.template(_recorded(revision))),
        recorder=recorder,
        driver=driver,
        gateway=gateway,
        secrets=secrets,
        configmaps=deciding.configmaps(client, clock),
        keys=IssuerKeys(options.data / "issuers", clock),
        place=accounts.place,
        hinted=accounts.keys.hint,
        fetched=kept.look_again,
    )
    system = SystemPods(client, settings.NAMESPACE, options.pod, lambda found: gateway.expect(*found), clock)
    return Ready(
        ground=ground,
        own=own,
        system=system,
        driver=driver,
        gateway=gateway,
        accounts=accounts,
        kept=kept,
        parts=parts,
        loop=deciding.engine(parts),
    )


@asynccontextmanager
async def leading(ready: Ready, stopping: Stopping) -> AsyncIterator[Page]:
    """Everything that the leader does, until left; gives its figures. To be entered once, while standing by.

    Raises UserError when Secrets of ours cannot be used.
    """
    async with AsyncExitStack() as stack:
        yield await _begin(stack, ready, stopping)


async def _begin(stack: AsyncExitStack, ready: Ready, stopping: Stopping) -> Page:
    """From the ground up; the stack ends it in reverse: first nothing is decided any more."""
    parts, gateway = ready.parts, ready.gateway
    await ready.own.begin()
    await stack.enter_async_context(tasks(parts.recorder.run(), ready.own.run()))
    await stack.enter_async_context(gateway)
    stopping(gateway.stop_serving)
    # Nothing is told to gateways before all is known; so they may connect now.
    stack.push_async_callback(ready.system.step_down)
    await ready.system.begin()
    await stack.enter_async_context(tasks(ready.system.run(), ready.driver.run(), ready.kept.run()))
    await ready.driver.synced.wait()
    await ready.kept.restore()
    await ready.accounts.first(_KEYS_SECONDS)
    watch = await deciding.decide(stack, parts, ready.loop)
    ready.accounts.follow(watch.look_again)
    watch.look_again()  # what was fetched before anybody followed
    log.info("this operator decides; gateways connect to %s", ready.ground.options.xds)
    return metrics.page(gateway, ready.loop.counters, parts.queue, parts.client)


def _recorded(revision: Recorded) -> Unit | Task:
    return revision.task if isinstance(revision, JobRevision) else revision.unit
