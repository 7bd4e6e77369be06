"""The gateway that carries requests: Envoy as a child process, told what to do over a Unix socket."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import modelyard
from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.gateway import addresses, metrics, server_calls, unknown_keys
from modelyard.control.gateway.access_file import AccessFile
from modelyard.control.gateway.listening import PrivateSocket
from modelyard.control.gateway.pipeline import Pipeline, Site
from modelyard.control.gateway.process import EnvoyProcess
from modelyard.control.gateway.stats import Loads
from modelyard.control.ir.names import SHADOW_SOCKET
from modelyard.control.ir.observed import Load
from modelyard.control.ir.unit_secret import UnitSecret, none
from modelyard.control.render.xds_door import INTERNAL_NAME, Door, Lock

_log = logging.getLogger(__name__)

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 10.0
_END_SECONDS = 5.0
_STABLE_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_ACTIVE = "http.gateway.downstream_rq_active"


class EnvoyGateway(Pipeline):
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
        self._envoy = EnvoyProcess(run, logs, exposed=not addresses.is_loopback(self._host))
        self._log = AccessFile(logs, lambda: self._envoy.admin("POST", "/reopen_logs"))
        self._loads = Loads(lambda path: self._envoy.admin("GET", path), clock)
        site = Site(log=str(self._log.path), secret=secret, shadow=str(run / SHADOW_SOCKET))
        super().__init__(PrivateSocket(self._envoy.ads_socket), site)
        self._stack = contextlib.AsyncExitStack()
        self._live = False

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

    def load(self) -> Mapping[str, Load]:
        """See `Gateway.load`."""
        return self._loads.now

    async def metrics(self, model: str = "") -> str:
        """What is counted about units, as Prometheus text; of one model, by its canonical id. Raises RetryLater."""
        told = await self._envoy.admin("GET", metrics.ask(model))
        models = {each.ids[0] for each in self._routes}
        return await asyncio.to_thread(metrics.text, metrics.chosen(self._loads.now, model), told, models)

    async def report_unknown_keys(self, told: Callable[[], None]) -> None:
        """Call `told` whenever tokens named a key that their issuer is not known to have, until cancelled."""
        await unknown_keys.watch(self._envoy.admin, self._clock, told, self._counts_unknown_keys)

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

    def _refused_doors(self, why: str) -> None:
        if not self._live:
            return
        if self._is_traced():
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
