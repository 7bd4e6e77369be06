"""From routes and a platform to what Envoys are told, and from their answers to what is in force: for every gateway."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from itertools import islice
from typing import Any, NamedTuple

import modelyard
from modelyard.control.gateway.ads import Ads
from modelyard.control.gateway.doors import Doors
from modelyard.control.gateway.extensions import Extensions
from modelyard.control.gateway.hints import Hints
from modelyard.control.gateway.listening import Listening
from modelyard.control.gateway.shadows import Shadows
from modelyard.control.gateway.switch import Switch
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.platform import Platform, Tracing
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_access, xds_listener, xds_tracing
from modelyard.control.render.xds_door import Door

_log = logging.getLogger(__name__)

_INHERITED_SECONDS = 10.0
_AT_ONE_GO = 50  # owners, before others get their turn on the loop


class Site(NamedTuple):
    """What differs between gateways. log: path of Envoy's access log, "" for its standard output. secret: of units.

    shadow: where replicas ask that compare copies (`xds_shadow.listener`), "": nowhere. inherits: Envoys serve callers
    before and after this process: nothing is told to them before it is known what is wanted, and one that has served
    nobody yet begins when all of that was told.
    """

    log: str
    secret: UnitSecret = none
    shadow: str = ""
    inherits: bool = False


class Pipeline:
    """The part of a `Gateway` that is the same everywhere. Somebody runs `_converge` and `_complete`."""

    def __init__(self, listening: Listening, site: Site) -> None:
        self._site = site
        self._changed = asyncio.Event()
        self._is_published = asyncio.Event()
        self._is_told = asyncio.Event()
        self._is_complete = False
        self._hints = Hints()
        self._ads = Ads(listening, self._answered, is_open=not site.inherits, has_doors=not site.inherits)
        self._doors = Doors(self._ads, self._listener)
        self._shadows = Shadows(self._ads, site.secret, site.shadow) if site.shadow else None
        self._switch = Switch(self._ads, modelyard.__version__, site.secret, self._shadows, lists=not site.inherits)
        self._extensions = Extensions(self._ads)
        self._routes: tuple[Route, ...] = ()
        self._tracing: Tracing | None = None
        self._is_untraced = False
        if not site.inherits:
            self._extensions.aim(Platform())

    def configure(self, platform: Platform) -> None:
        """See `Gateway.configure`."""
        self._extensions.aim(platform)
        self._ads.put(xds.SCOPE, xds.KEYS, xds.published(platform))
        self._doors.aim(platform.tls)
        if platform.tracing != self._tracing:
            self._trace(platform.tracing)

    async def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """See `Gateway.publish`."""
        self._routes = routes
        self._switch.publish(routes, endpoints)
        self._is_published.set()
        self._changed.set()

    def observe(self, owner: Key) -> ObservedRoute:
        """See `Gateway.observe`."""
        return self._switch.observe(owner)

    @property
    def compared(self) -> frozenset[str]:
        """Units that compare their answers to copies of requests, as far as routes in force say so."""
        return self._shadows.units if self._shadows else frozenset()

    def hints(self) -> AsyncIterator[Key]:
        """See `Gateway.hints`."""
        return self._hints.drain()

    def _counts_unknown_keys(self) -> bool:
        platform = self._extensions.platform
        return platform is not None and xds_access.counts_unknown_keys(platform)

    def _answered(self, kind: str, names: Collection[str] | None) -> None:
        self._switch.answered(kind, names)
        self._changed.set()

    def _refused_doors(self, why: str) -> None:
        """An Envoy does not listen."""
        raise NotImplementedError

    async def _converge(self) -> None:
        """Whenever an Envoy answered or the goal changed, take the next steps towards it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if why := self._doors.refusal():
                self._refused_doors(why)
            if not self._is_untraced and (why := self._ads.refusal(xds.CLUSTER, xds_tracing.COLLECTOR)):
                self._trace_nothing(why)
            self._doors.settle()
            self._extensions.settle()
            # Always from the front: what narrows comes there while others wait.
            while due := list(islice(self._switch.due, _AT_ONE_GO)):
                for owner in due:
                    if self._switch.settle(owner):
                        self._hints.add(owner)
                await asyncio.sleep(0)
                self._extensions.settle()
            self._switch.sweep()
            if not self._is_complete and self._site.inherits and self._is_known():
                self._begin()
            if not self._is_told.is_set() and self._switch.is_told():
                self._is_told.set()

    def _is_known(self) -> bool:
        """Whether it is known what is wanted."""
        return self._is_published.is_set()

    def _begin(self) -> None:
        """Tell what is wanted, and when all of it was told let new Envoys serve."""
        self._ads.want(lambda each: self._is_fixed(each) or self._switch.wants(each))
        self._ads.open()
        if self._switch.is_said():
            self._ads.open_doors()

    @staticmethod
    def _is_fixed(scope: str) -> bool:
        return scope in xds.SERVER_SCOPES or scope == xds.KEYS

    async def _complete(self) -> None:
        """What Envoys have from an earlier control plane serves until this one's is in force, yet not for long.

        Where they serve callers all the time, nothing that a wanted route may still need goes before that.
        """
        await self._is_published.wait()
        await self._ads.met.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INHERITED_SECONDS):
                await self._is_told.wait()
        self._ads.open_doors()
        self._switch.show_list()
        if self._site.inherits:
            await self._is_told.wait()
        self._is_complete = True
        self._ads.complete()

    def _listener(self, door: Door) -> dict[str, Any]:
        tracing = None if self._is_untraced else self._tracing
        return xds_listener.listener(door, self._site.log, tracing)

    def _trace(self, tracing: Tracing | None) -> None:
        """Only a change of this setting changes the listener: connections are drained over some minutes."""
        self._tracing, self._is_untraced = tracing, False
        if tracing is not None:
            self._ads.put(xds.CLUSTER, xds_tracing.COLLECTOR, xds_tracing.collector(tracing))
        self._doors.again()
        if tracing is None:
            self._ads.remove(xds.CLUSTER, xds_tracing.COLLECTOR)

    def _trace_nothing(self, why: str) -> None:
        _log.error("requests are not traced, since Envoy refuses what the settings say about it: %s", why)
        self._is_untraced = True
        self._doors.again()

    def _is_traced(self) -> bool:
        return self._tracing is not None and not self._is_untraced
