"""The gateway that carries requests: Envoy as a child process, told what to do over a Unix socket."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from types import TracebackType

import modelyard
from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.gateway import server_calls
from modelyard.control.gateway.ads import Ads
from modelyard.control.gateway.hints import Hints
from modelyard.control.gateway.process import EnvoyProcess
from modelyard.control.gateway.switch import Switch
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.render import xds, xds_listener

_log = logging.getLogger(__name__)

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 10.0
_END_SECONDS = 5.0
_STABLE_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_AT_ONE_GO = 50  # owners, before others get their turn on the loop
_ACTIVE = "http.gateway.downstream_rq_active"


class EnvoyGateway:
    """Serves on host:port while the `async with` block runs; port 0 takes a free one. host: a loopback address.

    run: a private folder with a short path, for sockets; logs: a folder for Envoy's log. Entering raises UserError when
    the port is taken or Envoy does not start. A killed Envoy is started again at once, with everything that was in
    force. Leaving ends it when its requests in flight are answered.
    """

    def __init__(self, *, host: str, port: int, run: Path, logs: Path, clock: Clock) -> None:
        self._host = _loopback(host)
        self._port = port
        self._any_port = port == 0
        self._clock = clock
        self._changed = asyncio.Event()
        self._hints = Hints()
        self._envoy = EnvoyProcess(run, logs)
        self._ads = Ads(self._envoy.ads_socket, self._answered)
        self._switch = Switch(self._ads, modelyard.__version__)
        self._stack = contextlib.AsyncExitStack()
        self._live = False
        self._platform = Platform()

    @property
    def url(self) -> str:
        """Where callers find it, without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def pid(self) -> int:
        """Envoy's process, 0 while there is none."""
        return self._envoy.pid

    async def __aenter__(self) -> "EnvoyGateway":
        self._listen()
        try:
            await self._stack.enter_async_context(self._ads.serving(server_calls.answering(modelyard.__version__)))
            tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            await self._envoy.start()
            running = (tasks.create_task(self._converge()), tasks.create_task(self._supervise()))
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
        self._platform = platform

    async def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """See `Gateway.publish`."""
        self._switch.publish(routes, endpoints)
        self._changed.set()

    def observe(self, owner: Key) -> ObservedRoute:
        """See `Gateway.observe`."""
        return self._switch.observe(owner)

    def hints(self) -> AsyncIterator[Key]:
        """See `Gateway.hints`."""
        return self._hints.drain()

    def _answered(self, kind: str, names: Collection[str] | None) -> None:
        self._switch.answered(kind, names)
        self._changed.set()

    async def _converge(self) -> None:
        """Whenever Envoy answered or the goal changed, take the next steps towards it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._live and (why := self._ads.refusal(xds.LISTENER, xds.LISTENER_NAME)):
                _log.warning("Envoy cannot listen on %s: %s; starting it again", self.url, why)
                self._envoy.kill()
            for count, owner in enumerate(list(self._switch.due), start=1):
                if self._switch.settle(owner):
                    self._hints.add(owner)
                if count % _AT_ONE_GO == 0:
                    await asyncio.sleep(0)
            self._switch.sweep()

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
        return True

    async def _until_live(self) -> None:
        """Until a request was answered. Raises UserError when the port is taken or Envoy ends."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not (self._ads.holds(xds.LISTENER, xds.LISTENER_NAME) and await self._answers()):
                    why = self._ads.refusal(xds.LISTENER, xds.LISTENER_NAME)
                    if why and self._any_port:
                        self._port = 0
                        self._listen()
                    elif why:
                        raise _taken(self._host, self._port, why)
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
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
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
        """Choose the port where that is left to us, and tell it."""
        self._port = _claimed(self._host, self._port)
        self._ads.put(xds.LISTENER, xds.LISTENER_NAME, xds_listener.listener(self._host, self._port))

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


def _loopback(host: str) -> str:
    """The address to bind. Raises UserError for any that other machines reach: callers are not authenticated."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        if ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise UserError(
        f"--listen {host}: must be a loopback address such as 127.0.0.1, since callers are not authenticated; for "
        "other machines put a proxy that authenticates in front"
    )


def _claimed(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises UserError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Binding alone succeeds beside a listener that has set the same option.
            probe.listen()
        except OSError as error:
            raise _taken(host, port, errno.errorcode.get(error.errno or 0, "") + f" {error.strerror}") from error
        return int(probe.getsockname()[1])


def _taken(host: str, port: int, why: str) -> UserError:
    return UserError(
        f"the gateway cannot listen on {host}:{port} ({why}): stop the program that has the port, or choose another "
        "one with --listen HOST:PORT (port 0: any free one)"
    )
