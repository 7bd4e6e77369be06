"""The gateway that carries requests: Envoy as a child process, told what to do over a Unix socket."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import modelyard
from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.gateway import addresses, metrics, server_calls, unknown_keys
from modelyard.control.gateway.access_file import AccessFile
from modelyard.control.gateway.ads import Ads
from modelyard.control.gateway.doors import Doors
from modelyard.control.gateway.extensions import Extensions
from modelyard.control.gateway.hints import Hints
from modelyard.control.gateway.process import EnvoyProcess
from modelyard.control.gateway.shadows import Shadows
from modelyard.control.gateway.stats import Loads
from modelyard.control.gateway.switch import Switch
from modelyard.control.ir.names import SHADOW_SOCKET
from modelyard.control.ir.observed import Load, ObservedRoute
from modelyard.control.ir.platform import Platform, Tracing
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_access, xds_listener, xds_tracing
from modelyard.control.render.xds_door import INTERNAL_NAME, Door, Lock

_log = logging.getLogger(__name__)

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 10.0
_END_SECONDS = 5.0
_STABLE_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_INHERITED_SECONDS = 10.0
_AT_ONE_GO = 50  # owners, before others get their turn on the loop
_ACTIVE = "http.gateway.downstream_rq_active"


class EnvoyGateway:
    """Serves on host:port while the `async with` block runs; port 0 takes a free one. host: an address to bind.

    Where other machines reach that address, a second listener on loopback (internal_port) is the one at which internal
    services answer too; else the only one is. secret: what the replicas of a unit demand of requests.

    run: a private folder with a short path, for sockets; logs: a folder for Envoy's log. Entering raises UserError when
    the port is taken or Envoy does not start. A killed Envoy is started again at once, with everything that was in
    force. Leaving ends it when its requests in flight are answered.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        run: Path,
        logs: Path,
        clock: Clock,
        secret: UnitSecret = none,
        internal_port: int = 0,
    ) -> None:
        self._host = addresses.host(host)
        self._asked_ports = port, internal_port
        self._clock = clock
        self._changed = asyncio.Event()
        self._is_published = asyncio.Event()
        self._is_told = asyncio.Event()
        self._hints = Hints()
        self._envoy = EnvoyProcess(run, logs, exposed=not addresses.is_loopback(self._host))
        self._log = AccessFile(logs, lambda: self._envoy.admin("POST", "/reopen_logs"))
        self._loads = Loads(lambda path: self._envoy.admin("GET", path), clock)
        self._ads = Ads(self._envoy.ads_socket, self._answered)
        self._doors = Doors(self._ads, self._listener)
        shadows = Shadows(self._ads, secret, str(run / SHADOW_SOCKET))
        self._switch = Switch(self._ads, modelyard.__version__, secret, shadows)
        self._stack = contextlib.AsyncExitStack()
        self._live = False
        self._routes: tuple[Route, ...] = ()
        self._tracing: Tracing | None = None
        self._is_untraced = False
        self._extensions = Extensions(self._ads)
        self._extensions.aim(Platform())

    @property
    def url(self) -> str:
        """Where callers find it, without a path."""
        return self._doors.url

    @property
    def local_url(self) -> str:
        """Where programs of this machine find it, internal services included."""
        return self._doors.local_url

    @property
    def pid(self) -> int:
        """Envoy's process, 0 while there is none."""
        return self._envoy.pid

    async def __aenter__(self) -> "EnvoyGateway":
        self._listen()
        try:
            await self._stack.enter_async_context(self._ads.serving(server_calls.answering(modelyard.__version__)))
            tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._log.make()
            await self._envoy.start()
            work = (self._converge(), self._supervise(), self._log.keep(self._clock), self._loads.run())
            running = [tasks.create_task(each) for each in (*work, self._complete())]
            self._stack.push_async_callback(self._close, *running)
            await self._until_live()
        except BaseException:
            await self._stack.aclose()
            raise
        self._live = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

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

    def load(self) -> Mapping[str, Load]:
        """See `Gateway.load`."""
        return self._loads.now

    async def metrics(self, model: str = "") -> str:
        """What is counted about units, as Prometheus text; of one model, by its canonical id. Raises RetryLater."""
        told = await self._envoy.admin("GET", metrics.ask(model))
        models = {each.ids[0] for each in self._routes}
        return await asyncio.to_thread(metrics.text, metrics.chosen(self._loads.now, model), told, models)

    def hints(self) -> AsyncIterator[Key]:
        """See `Gateway.hints`."""
        return self._hints.drain()

    async def report_unknown_keys(self, told: Callable[[], None]) -> None:
        """Call `told` whenever tokens named a key that their issuer is not known to have, until cancelled."""
        await unknown_keys.watch(self._envoy.admin, self._clock, told, self._counts_unknown_keys)

    def _counts_unknown_keys(self) -> bool:
        platform = self._extensions.platform
        return platform is not None and xds_access.counts_unknown_keys(platform)

    def _answered(self, kind: str, names: Collection[str] | None) -> None:
        self._switch.answered(kind, names)
        self._changed.set()

    async def _converge(self) -> None:
        """Whenever Envoy answered or the goal changed, take the next steps towards it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._live and (why := self._doors.refusal()):
                self._cannot_listen(why)
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
            if not self._is_told.is_set() and self._switch.is_told():
                self._is_told.set()

    async def _complete(self) -> None:
        """What Envoy has from an earlier control plane serves until all of this one's is in force, yet not for long."""
        await self._is_published.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INHERITED_SECONDS):
                await self._is_told.wait()
        self._ads.complete()

    async def _supervise(self) -> None:
        """Start Envoy again when it ends: at once, then with growing pauses until it stays."""
        pause = 0.0
        while True:
            began = self._clock.monotonic()
            status = await self._envoy.wait()
            stayed = self._clock.monotonic() - began >= _STABLE_SECONDS
            _log.warning("Envoy ended with status %d and is started again: %s", status, self._envoy.last_lines)
            pause = 0.0 if stayed else min(max(2 * pause, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            await self._clock.sleep(pause)
            while not await self._started():
                pause = min(max(2 * pause, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
                await self._clock.sleep(pause)

    async def _started(self) -> bool:
        try:
            await self._envoy.start()
        except (OSError, UserError) as error:
            _log.warning("Envoy cannot be started: %s", error)
            return False
        self._loads.began_anew()
        return True

    async def _until_live(self) -> None:
        """Until a request was answered. Raises UserError when the port is taken or Envoy ends."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not (self._doors.stand() and await self._answers()):
                    why = self._doors.refusal()
                    if why and 0 in self._asked_ports:
                        self._listen()
                    elif why:
                        raise addresses.taken(*self._doors.place, why)
                    if not self._envoy.pid:
                        raise UserError(
                            f"Envoy ended while it was starting: {self._envoy.last_lines or 'it wrote nothing'}"
                        )
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise UserError(
                f"Envoy did not serve within {_START_SECONDS:g} s: {self._envoy.last_lines or 'it wrote nothing'}"
            ) from None

    async def _answers(self) -> bool:
        """Whether a request is answered where one can be sent in plain text; elsewhere no secret may be known yet."""
        door = self._doors.local
        if door.lock is not Lock.OPEN:
            return True
        try:
            reader, writer = await asyncio.open_connection(door.host, door.port)
        except OSError:
            return False
        try:
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _listen(self) -> None:
        """Choose ports where that is left to us, and tell them."""
        port, internal_port = self._asked_ports
        exposed = not addresses.is_loopback(self._host)
        public = Door(host=self._host, port=addresses.claimed(self._host, port), internal=not exposed, exposed=exposed)
        internal = None
        if exposed:
            claimed = addresses.claimed(addresses.LOOPBACK, internal_port)
            internal = Door(name=INTERNAL_NAME, host=addresses.LOOPBACK, port=claimed)
        self._doors.open(public, internal)

    def _listener(self, door: Door) -> dict[str, Any]:
        tracing = None if self._is_untraced else self._tracing
        return xds_listener.listener(door, str(self._log.path), tracing)

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

    def _cannot_listen(self, why: str) -> None:
        if self._tracing is not None and not self._is_untraced:
            self._trace_nothing(why)
            return
        _log.warning("Envoy cannot listen on %s: %s; starting it again", self.url, why)
        self._envoy.kill()

    async def _close(self, *running: "asyncio.Task[None]") -> None:
        for task in running:
            task.cancel()  # from here on nobody starts Envoy again
        await asyncio.gather(*running, return_exceptions=True)
        if not self._envoy.pid:
            return
        with contextlib.suppress(RetryLater, TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._envoy.admin("POST", "/drain_listeners")
                await self._until_idle()
        await self._envoy.end(_END_SECONDS)

    async def _until_idle(self) -> None:
        """Until no request is in flight."""
        while True:
            if f"{_ACTIVE}: 0" in await self._envoy.admin("GET", f"/stats?filter={_ACTIVE}"):
                return
            await asyncio.sleep(_POLL_SECONDS)
