"""The server as a function: listen, serve until told to stop, drain."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping

import msgspec

from modelyard.base.errors import UserError
from modelyard.runtime.backends.load import is_available
from modelyard.runtime.backends.port import Backend
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.gateway import Gateway
from modelyard.runtime.front.http import Connection, Limits
from modelyard.runtime.front.models import host
from modelyard.runtime.front.routes import Routes
from modelyard.runtime.front.shadow import Shadow
from modelyard.wire.work import ServeWork

_log = logging.getLogger(__name__)

_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
_MAX_SOCKET_PATH = 107  # sun_path, Linux; macOS has 103
_BACKLOG = 1024
_MAX_CONNECTIONS = 900  # below the 1,024 open files that a process usually may have
_LAME_DUCK_SECONDS = 1.0  # how long after SIGTERM idle connections may still send a request
_UNTOLD_SECONDS = 3.0  # the same in a pod, whose gateway learns of its end no sooner than it does
_CHECK_SECONDS = 1.0
_DRAIN_CHECK_SECONDS = 0.02
_DRAIN_IDLE_SECONDS = 0.1  # a connection this young may still be about to send its request


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen: socket, the path of a Unix socket (mode 0600), or a host and port (0: any).

    gateway: whom to answer, None: everybody, which only a socket or this machine alone may reach.
    """

    socket: str = ""
    gateway: Gateway | None = None
    host: str = "127.0.0.1"
    port: int = 0


async def serve(
    work: ServeWork,
    backends: Mapping[str, Backend],
    listen: Listen,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    comparisons: Shadow | None = None,
) -> None:
    """Serve until `stop` is set and requests in flight are answered, at most work.drain_seconds.

    backends: by ModelWork.name; the caller closes them. ready: called with the address (a path or `host:port`) once
    every model answered its first inference and the server listens. comparisons: of copies of requests. Raises
    LoadFailed when a model does not answer, and UserError when it cannot listen there.
    """
    models = [await host(model, backends[model.name], work) for model in work.models]
    routes = Routes(
        models,
        ready=lambda: not stop.is_set() and all(map(is_available, backends.values())),
        comparisons=comparisons,
    )
    server = _Server(routes, Limits(body_bytes=work.max_body_bytes), stop, listen)
    await server.start(listen)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(model.batcher.run()) for model in models]
            running.append(tasks.create_task(server.watch()))
            if comparisons is not None:
                running.append(tasks.create_task(comparisons.run()))
            ready(server.address)
            await stop.wait()
            _log.info("stopping: not ready from now on")
            await server.drain(work.drain_seconds)
            for task in running:
                task.cancel()
    finally:
        server.abort()
        await asyncio.sleep(0)  # the transports close in the next turn of the loop


class _Server:
    """A listening socket and the connections that came through it. (`http.Site`)"""

    def __init__(self, routes: Routes, limits: Limits, stop: asyncio.Event, listen: Listen) -> None:
        self.local_only = not listen.socket and listen.gateway is None
        self.gateway = listen.gateway
        self.limits = limits
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.address = ""
        self._routes = routes
        self._stop = stop
        self._listener: asyncio.Server | None = None
        self._path = ""

    def respond(self, exchange: Exchange) -> None:
        self._routes.respond(exchange)

    @property
    def draining(self) -> bool:
        return self._stop.is_set()

    def entered(self, connection: Connection) -> bool:
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= _MAX_CONNECTIONS

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def start(self, listen: Listen) -> None:
        loop = asyncio.get_running_loop()
        if listen.socket:
            bound = _bind(listen.socket)
            self._path = self.address = listen.socket
            self._listener = await loop.create_unix_server(lambda: Connection(self, loop), sock=bound, backlog=_BACKLOG)
            return
        if self.local_only and listen.host not in _LOCAL_HOSTS:
            raise UserError(
                f"{listen.host} is not this machine alone, and there is no digest of a gateway's secret to tell who "
                f"may ask; listen on {', '.join(_LOCAL_HOSTS)}"
            )
        try:
            self._listener = await loop.create_server(
                lambda: Connection(self, loop), listen.host, listen.port, backlog=_BACKLOG
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(f"port {listen.port} is in use; stop what uses it or choose another port") from error
            raise UserError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from error
        host, port = self._listener.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"

    async def watch(self) -> None:
        """End what clients leave hanging."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            now = loop.time()
            for connection in tuple(self._connections):
                connection.check(now)

    async def drain(self, seconds: float) -> None:
        """Answer whoever is here, and let nobody new in.

        For a moment clients may go on: whoever picked this server before it was taken out of the routes gets an answer
        that ends with `Connection: close`. At a socket nobody comes once all have left: who listens there was taken out
        of the routes before. Then idle connections are closed, and others get the rest of `seconds`.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if self.gateway is not None and not self._path:
            await asyncio.sleep(min(_UNTOLD_SECONDS, seconds))
        else:
            await self._until_empty(min(_LAME_DUCK_SECONDS, seconds))
        self._unlink()  # first the name: who is in the socket's queue already is still let in
        await asyncio.sleep(_DRAIN_CHECK_SECONDS)
        if self._listener is not None:
            self._listener.close()
        while self._connections and loop.time() < end:
            for connection in tuple(self._connections):
                if connection.idle_seconds() > _DRAIN_IDLE_SECONDS:
                    connection.close()
            await self._until_empty(_DRAIN_CHECK_SECONDS)
        if left := sum(connection.busy for connection in self._connections):
            _log.warning("%d connections were still at work after %g seconds and are cut off", left, seconds)

    async def _until_empty(self, seconds: float) -> None:
        """Wait until no client is connected."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    def abort(self) -> None:
        """Close everything at once; idempotent."""
        if self._listener is not None:
            self._listener.close()
        self._unlink()
        for connection in tuple(self._connections):
            connection.abort()

    def _unlink(self) -> None:
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = ""


def _bind(path: str) -> socket.socket:
    """A Unix socket that only this user may connect to; one that a killed process left is replaced."""
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise UserError(f"the socket path {path} is longer than {_MAX_SOCKET_PATH} bytes; choose a shorter folder")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        before = os.umask(0o177)
        try:
            bound.bind(path)
        finally:
            os.umask(before)
    except OSError as error:
        bound.close()
        raise UserError(f"cannot listen on the socket {path}: {error.strerror}") from error
    return bound
