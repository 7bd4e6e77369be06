"""The local composition root: API server, loop, processes, broker and Envoy in one program for one project folder."""

import base64
import binascii
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from modelyard.api import schema
from modelyard.base.clock import SystemClock
from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, UserError
from modelyard.control.apiserver import folder as apifolder
from modelyard.control.apiserver.routes import Page
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.drivers.processes.driver import ProcessDriver
from modelyard.control.drivers.processes.site import Folders
from modelyard.control.engine.standing import Place
from modelyard.control.engine.writer import Writer
from modelyard.control.gateway import addresses
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.gateway.issuer_keys import IssuerKeys
from modelyard.control.ir import unit_secret as unit_secrets
from modelyard.control.ir.unit import SecretKey
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import MODELSTREAMS, SECRETS
from modelyard.server import deciding, gateway_key, metrics
from modelyard.server.broker import Broker
from modelyard.server.deciding import Parts, tasks
from modelyard.server.folder import Folder, opened
from modelyard.wire import jose

log = logging.getLogger(__name__)
Object = dict[str, Any]
Changed = Callable[[str, tuple[str, str], Object | None], None]
_API_HOST = "127.0.0.1"
_LOG_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """root: the project folder. data: where state is kept. host, port: of the gateway; port 0: any free one.

    internal_port: of the gateway on loopback, where host is an address that other machines reach.
    """

    root: Path
    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    internal_port: int = 0
    ephemeral: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A started server. client: of its API.

    gateway: `http://host:port`, or https. internal: the same for programs of this machine; differs where others call.
    """

    folder: Folder
    gateway: str
    internal: str
    client: Client


@asynccontextmanager
async def running(options: Options, *, changed: Changed) -> AsyncIterator[Running]:
    """Start everything, and end it when left: requests in flight are finished, no process is left.

    changed: called with kind, (namespace, name) and the object (None: deleted) for every change of an object of ours.
    Raises UserError when the folder or the port cannot be had.
    """
    try:
        async with AsyncExitStack() as stack:
            yield await _start(stack, options, changed)
    except BaseExceptionGroup as group:
        raise deciding.told(group) from group


async def _start(stack: AsyncExitStack, options: Options, changed: Changed) -> Running:
    """From the ground up; the stack ends it in reverse: first nothing is decided any more, then processes end."""
    clock = SystemClock()
    folder = stack.enter_context(opened(options.root, options.data, ephemeral=options.ephemeral))
    _log_to(stack, folder.own / "server.log")
    pages: dict[str, Page] = {}
    client, accounts = await _api(stack, folder, clock, pages)
    recorder = EventRecorder(client, "modelyard", clock)
    folders = Folders(run=folder.run, work=folder.data / "work", logs=folder.logs, cache=folder.cache, root=folder.root)
    broker = await stack.enter_async_context(_broker(folder, folders, recorder, clock))
    secrets = Reflector(client, SECRETS, clock=clock)
    unit_secret = partial(unit_secrets.unit_secret, gateway_key.read(folder.own))
    driver = await stack.enter_async_context(_driver(folders, secrets, clock, unit_secret))
    secrets.add_handler(lambda _place, _old, _new: driver.look_again())
    gateway = await stack.enter_async_context(_gateway(options, folder, clock, unit_secret))
    watched = deciding.watched(client, clock)
    for kind, reflector in watched.objects.items():
        reflector.add_handler(_of_kind(kind, changed))
    watched.objects[MODELSTREAMS.kind].add_handler(broker.saw)
    announcement = _Announcement(folder, folders.broker(), lambda: gateway.local_url)
    place = Place(loopback=addresses.is_loopback(addresses.host(options.host)), accounts=accounts)
    parts = Parts(
        client=client,
        clock=clock,
        watched=watched,
        writer=Writer(client, recorder),
        recorder=recorder,
        driver=driver,
        gateway=gateway,
        secrets=secrets,
        configmaps=deciding.configmaps(client, clock),
        keys=IssuerKeys(folder.own / "issuers", clock),
        place=lambda: place,
        changes=announcement.after,
    )
    engine = deciding.engine(parts)
    pages["/metrics"] = metrics.page(gateway, engine.counters, parts.queue, client)
    await stack.enter_async_context(tasks(secrets.run(), parts.configmaps.run(), recorder.run()))
    await deciding.decide(stack, parts, engine)
    announcement.begin()
    stack.callback(folder.withdraw)
    return Running(folder=folder, gateway=gateway.url, internal=gateway.local_url, client=client)


def _broker(folder: Folder, folders: Folders, recorder: EventRecorder, clock: SystemClock) -> Broker:
    return Broker(
        home=folder.data / "broker",
        announced=folders.broker(),
        log=folder.own / "broker.log",
        clock=clock,
        told=lambda stream, problem: recorder.record(stream, "Warning", Reason.BROKER_UNREACHABLE, problem),
    )


def _driver(
    folders: Folders, secrets: Reflector, clock: SystemClock, unit_secret: Callable[[str], str]
) -> ProcessDriver:
    return ProcessDriver(
        folders=folders,
        secrets=lambda namespace, key: _secret(secrets.cache, namespace, key),
        secret_files=lambda namespace, name: _secret_files(secrets.cache, namespace, name),
        unit_secret=unit_secret,
        clock=clock,
    )


def _gateway(options: Options, folder: Folder, clock: SystemClock, secret: Callable[[str], str]) -> EnvoyGateway:
    return EnvoyGateway(
        host=options.host,
        port=options.port,
        run=folder.run,
        logs=folder.own,
        clock=clock,
        secret=secret,
        internal_port=options.internal_port,
    )


class _Announcement:
    """Tells commands where the gateway is, from when it serves, and again whenever that has changed."""

    def __init__(self, folder: Folder, broker: Path, url: Callable[[], str]) -> None:
        self._folder = folder
        self._broker = broker
        self._url = url
        self._told: str | None = None

    def begin(self) -> None:
        self._told = self._url()
        self._folder.announce(self._told, self._broker)

    def after(self, change: Callable[[], None]) -> None:
        """What may change it."""
        change()
        if self._told not in (None, self._url()):
            self.begin()


async def _api(
    stack: AsyncExitStack, folder: Folder, clock: SystemClock, pages: Mapping[str, Page]
) -> tuple[Client, str]:
    """The embedded API server on a port that stays the same over restarts where it can.

    -> a client of it, and the key set of its tokens for ServiceAccounts.
    """
    home = stack.enter_context(apifolder.opened(folder.own))
    store = await stack.enter_async_context(Store.open(home.database, clock))
    tls = home.tls(_API_HOST, clock)
    key = home.key()
    server = ApiServer(store, schema.crds(), token=home.token, tls=tls, clock=clock, key=key, pages=pages)
    try:
        url = await stack.enter_async_context(server.listening(_API_HOST, _last_port(folder)))
    except UserError:
        url = await stack.enter_async_context(server.listening(_API_HOST, 0))
    home.write_kubeconfig(url)
    home.kubeconfig.replace(folder.kubeconfig)
    config = auth.load(folder.kubeconfig)
    accounts = json.dumps({"keys": [jose.public_jwk(key.public_key())]})
    return await stack.enter_async_context(Client(config)), accounts


def _last_port(folder: Folder) -> int:
    """Kubeconfigs that people copied go on working."""
    try:
        return int(auth.load(folder.kubeconfig).server.rpartition(":")[2])
    except (ModelyardError, ValueError):
        return 0


def _secret(cache: Mapping[tuple[str, str], Object], namespace: str, key: SecretKey) -> str | None:
    """A value for a process's environment; None if there is none, or none that an environment can carry."""
    encoded = (cache.get((namespace, key.secret), {}).get("data") or {}).get(key.key)
    try:
        return base64.b64decode(encoded, validate=True).decode() if isinstance(encoded, str) else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _secret_files(cache: Mapping[tuple[str, str], Object], namespace: str, name: str) -> dict[str, bytes] | None:
    """All keys of a Secret; None if there is no such Secret. A value that is no base64 is left out."""
    stored = cache.get((namespace, name))
    if stored is None:
        return None
    found = {}
    for key, encoded in (stored.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            log.warning("key %s of Secret %s/%s is no base64", key, namespace, name)
    return found


def _of_kind(kind: str, changed: Changed) -> Callable[[tuple[str, str], Object | None, Object | None], None]:
    return lambda place, _old, new: changed(kind, place, new)


def _log_to(stack: AsyncExitStack, path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    stack.callback(handler.close)
    stack.callback(root.removeHandler, handler)
