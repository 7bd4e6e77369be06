"""The gateway in a cluster: any number of Envoys that connect by themselves, over TCP and with certificates.

Envoys serve callers whether this runs or not. Whoever decides next takes over what they have: nothing is told before it
is known what is wanted, and nothing is taken away before all of that is in force.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from types import TracebackType

from msgspec.structs import replace

import modelyard
from modelyard.base.clock import Clock
from modelyard.base.errors import UserError
from modelyard.control.gateway import metrics, server_calls, unknown_keys
from modelyard.control.gateway.ads import Node
from modelyard.control.gateway.fleet import Fleet
from modelyard.control.gateway.listening import Identity, MutualTls
from modelyard.control.gateway.pipeline import Pipeline, Site
from modelyard.control.ir import names
from modelyard.control.ir.observed import Load
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.render import xds
from modelyard.control.render.xds_bootstrap import (
    GATEWAY_SAN,
    GATEWAYS,
    INTERNAL_PORT,
    PUBLIC_PORT,
    STATS_PORT,
)
from modelyard.control.render.xds_door import INTERNAL_NAME, Door

__all__ = ["Identity", "RemoteGateway"]

_log = logging.getLogger(__name__)

_LAME_DUCK_SECONDS = 5.0
"""Until nobody is sent to a gateway any more that is about to end."""


class RemoteGateway(Pipeline):
    """Serves Envoys that connect to `listen` while the `async with` block runs.

    listen: `host:port`, port 0 takes a free one; IPv6 in brackets, and then gateways listen on IPv6 as well. identity:
    what is shown from now on; asked at each handshake, from any thread. secret: what the replicas of a unit demand of
    requests. address, internal_address: `host` or `host:port` of public and internal listener as callers say them,
    without scheme.

    Entering raises UserError when the address cannot be had. Leaving ends all streams at once.
    """

    def __init__(
        self,
        *,
        listen: str = "0.0.0.0:18000",
        identity: Callable[[], Identity],
        clock: Clock,
        secret: UnitSecret = none,
        address: Callable[[], str],
        internal_address: str = "",
    ) -> None:
        host, port = _place(listen)
        self._address = address
        self._internal_address = internal_address
        self._clock = clock
        self._bound = "::" if ":" in host else "0.0.0.0"  # noqa: S104  the pod's network decides who gets there
        shadow = f"{'[::]' if ':' in host else self._bound}:{names.SHADOW_PORT}"
        site = Site(log="", secret=secret, shadow=shadow, inherits=True)
        super().__init__(MutualTls(host, port, identity, GATEWAY_SAN), site)
        self._fleet = Fleet(lambda: self._ads.nodes, identity, clock)
        self._stack = contextlib.AsyncExitStack()
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._turned_away: set[str] = set()
        self._has_doors = False
        self._refused = ""
        self._declared = ""

    @property
    def url(self) -> str:
        """Where callers find it, without a path: http or https as the settings say."""
        return self._declared or f"{self._doors.scheme}://{self._address()}"

    @property
    def local_url(self) -> str:
        """Where programs inside the cluster find it, internal services included."""
        return f"http://{self._internal_address}" if self._internal_address else self.url

    @property
    def port(self) -> int:
        """Where Envoys connect, once it is entered."""
        return self._ads.port

    @property
    def nodes(self) -> tuple[str, ...]:
        """The Envoys that are connected, by the names of their pods."""
        return tuple(sorted(each.name for each in self._ads.nodes))

    async def __aenter__(self) -> "RemoteGateway":
        try:
            await self._stack.enter_async_context(self._ads.serving(server_calls.answering(modelyard.__version__)))
            tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            running = [tasks.create_task(each) for each in (self._converge(), self._complete(), self._fleet.run())]
            self._stack.callback(self._close, *running)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def configure(self, platform: Platform) -> None:
        """See `Gateway.configure`. Nothing is told to any Envoy before this and `publish` were called once."""
        super().configure(replace(platform, internal_is_local=False))
        self._declared = platform.address
        if not self._has_doors:
            self._has_doors = True
            public = Door(host=self._bound, port=PUBLIC_PORT, internal=False, exposed=True)
            internal = Door(name=INTERNAL_NAME, host=self._bound, port=INTERNAL_PORT, exposed=True)
            self._doors.open(public, internal, inherited=True)
            self._changed.set()

    def load(self) -> Mapping[str, Load]:
        """See `Gateway.load`."""
        return self._fleet.now

    async def metrics(self, model: str = "") -> str:
        """What is counted about units, as Prometheus text; of one model, by its canonical id."""
        told = await self._fleet.ask(metrics.ask(model))
        models = {each.ids[0] for each in self._routes}
        return await asyncio.to_thread(metrics.text, metrics.chosen(self._fleet.now, model), told, models)

    async def report_unknown_keys(self, told: Callable[[], None]) -> None:
        """Call `told` whenever tokens named a key that their issuer is not known to have, until cancelled."""

        async def admin(_method: str, path: str) -> str:
            return "\n".join((await self._fleet.ask(path)).values())

        await unknown_keys.watch(admin, self._clock, told, self._counts_unknown_keys)

    def expect(self, ready: Collection[str], leaving: Collection[str]) -> None:
        """Exactly these Envoys, by the names of their pods, serve callers; and these are about to end.

        Nothing is in force that one of the former could miss because it is just not connected, for some seconds. The
        latter ask their callers soon to connect elsewhere. To be called before `publish`, and with every change.
        """
        self._ads.expect(frozenset(ready) - frozenset(leaving))
        for name in self._leaving.keys() - set(leaving):
            self._leaving.pop(name).cancel()
            self._turned_away.discard(name)
        for name in set(leaving) - self._leaving.keys():
            later = asyncio.get_running_loop().call_later(_LAME_DUCK_SECONDS, self._turn_away, name)
            self._leaving[name] = later

    def stop_serving(self) -> None:
        """End all streams at once and take no new ones, since somebody else decides. Envoys keep what they have."""
        self._ads.stop()

    def _answered(self, kind: str, names: Collection[str] | None) -> None:
        if names is None:  # an Envoy has come or gone
            self._ads.put(xds.ASSIGNMENT, GATEWAYS, xds.assignment(_gateways(self._ads.nodes)))
        super()._answered(kind, names)

    def _turn_away(self, name: str) -> None:
        self._turned_away.add(name)
        self._ads.leaving(self._turned_away)

    def _is_known(self) -> bool:
        return self._has_doors and super()._is_known()

    def _refused_doors(self, why: str) -> None:
        if self._is_traced():
            self._trace_nothing(why)
        elif why != self._refused:
            _log.error("a gateway cannot listen: %s", why)
        self._refused = why

    def _close(self, *running: "asyncio.Task[None]") -> None:
        self._ads.stop()
        for later in self._leaving.values():
            later.cancel()
        for task in running:
            task.cancel()


def _gateways(nodes: Collection[Node]) -> Endpoints:
    """Which zones they are in: nobody is sent to these addresses."""
    found = sorted((f"{each.host}:{each.stats_port or STATS_PORT}", each.zone) for each in nodes)
    return Endpoints(
        unit=GATEWAYS, addresses=tuple(address for address, _ in found), zones=tuple(zone for _, zone in found)
    )


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{listen}: expected an address and a port, such as 0.0.0.0:18000 or [::]:18000")
    return host.strip("[]"), int(port)
