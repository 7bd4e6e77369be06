"""The broker of `nats://local`: a nats-server of this project alone, started when a stream first names it.

Every message is on disk before it is acknowledged, so that a broker which is killed has lost none. Port and password
stay as they are over restarts: clients reconnect by themselves.

Source: https://docs.nats.io/running-a-nats-service/configuration
"""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from modelyard.base import launch
from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.control.drivers.processes.log import Log
from modelyard.control.drivers.processes.process import ending
from modelyard.server.folder import write_whole
from modelyard.wire.work import LOCAL_BROKER

logger = logging.getLogger(__name__)
Object = dict[str, Any]
Place = tuple[str, str]
Told = Callable[[Object, str], None]

HOST = "127.0.0.1"
USER = "modelyard"
OLDEST = (2, 12)
"""Of nats-server: atomic batches."""
_PORTS = range(4222, 4322)
"""The usual one first."""
_LARGEST_MESSAGE = 8 * 2**20
_MEMORY_BYTES = 256 * 2**20
"""Of streams that are kept in memory: claims."""
_LOG_BYTES = 2 * 2**20
_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
_STABLE_SECONDS = 10.0
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_ERROR = re.compile(r"\[(?:FTL|ERR)\] (.*)")
_INSTALL = "pip install 'modelyard[broker]'"


class Broker:
    """Stands by while the `async with` block runs, and ends what it started when that is left.

    home: a folder for messages, port and password. announced: the file that tells how it is reached, from when it first
    answered. log: its log. told: called with every stream that names it and what is wrong, when that is news.
    """

    def __init__(
        self, *, home: Path, announced: Path, log: Path, clock: Clock, told: Told = lambda _stream, _problem: None
    ) -> None:
        self._home = home
        self._announced = announced
        self._log = Log(log, _LOG_BYTES)
        self._clock = clock
        self._told = told
        self._streams: dict[Place, Object] = {}
        self._wanted = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._problem = ""
        self._running: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs, else 0."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    def saw(self, place: Place, _old: Object | None, new: Object | None) -> None:
        """A handler for the reflector of streams. Once wanted, it stays: others may still read what it keeps."""
        if new is None or not names_broker(new):
            self._streams.pop(place, None)
            return
        if self._problem and place not in self._streams:
            self._told(new, self._problem)
        self._streams[place] = new
        self._wanted.set()

    async def __aenter__(self) -> Self:
        self._announced.unlink(missing_ok=True)  # of a server that was killed
        self._running = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        self._running.cancel()  # from here on nobody starts it again
        await asyncio.gather(self._running, return_exceptions=True)
        self._announced.unlink(missing_ok=True)
        await self._end()

    async def _supervise(self) -> None:
        """Start it again whenever it ends, with growing pauses until it stays."""
        await self._wanted.wait()
        pause = 0.0
        while True:
            began = self._clock.monotonic()
            self._troubled(await self._once())
            if self._clock.monotonic() - began >= _STABLE_SECONDS:
                pause = 0.0
            pause = min(max(2 * pause, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            await self._clock.sleep(pause)

    async def _once(self) -> str:
        """One life, or a start that failed; what was wrong."""
        try:
            try:
                return await self._live()
            finally:
                await self._end()
        except ModelyardError as error:
            return error.message
        except OSError as error:
            return f"it cannot be started: {error}"
        except Exception as error:
            logger.exception("the broker")
            return f"a defect of Modelyard: {error!r}; the server's log has the details"

    async def _live(self) -> str:
        """From its start to its end; says how it ended. Raises UserError or RetryLater when it cannot start."""
        binary = await asyncio.to_thread(_binary)
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        port, password, name = _port(self._home / "port"), _password(self._home / "password"), secrets.token_hex(8)
        config = self._home / "nats-server.json"
        write_whole(config, json.dumps(configuration(self._home, port, password, name), ensure_ascii=False, indent=1))
        self._log.start()
        self._process = await asyncio.create_subprocess_exec(
            *launch.command([binary, "-c", str(config)], limits={"core": 0}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={},
        )
        announcing = asyncio.create_task(self._announce(port, password, name))
        try:
            status = await self._wait(self._process)
        finally:
            announcing.cancel()
            (failed,) = await asyncio.gather(announcing, return_exceptions=True)
        if isinstance(failed, Exception):
            raise failed
        errors = _ERROR.findall(self._log.tail())
        return f"nats-server {ending(status)}{''.join(f': {each}' for each in errors[-1:])}; it is started again"

    async def _announce(self, port: int, password: str, name: str) -> None:
        """Once it answers, tell how it is reached. It stays told while it is started again: nothing of it changes."""
        pause = _POLL_SECONDS
        while not await _answers(port, name):
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, _LONGEST_POLL_SECONDS)
        url = f"nats://{HOST}:{port}"
        write_whole(self._announced, json.dumps({"url": url, "user": USER, "password": password}))
        self._problem = ""
        logger.info("the broker of %s answers at %s", LOCAL_BROKER, url)

    async def _wait(self, process: asyncio.subprocess.Process) -> int:
        """Copy its log until it ends; returns how it ended, a negative number being a signal."""
        assert process.stderr is not None
        while chunk := await process.stderr.read(65_536):
            self._log.write(chunk)
        self._log.close()
        return await process.wait()

    async def _end(self) -> None:
        """SIGTERM, and SIGKILL when that does not help: what it acknowledged is on disk."""
        process = self._process
        if process is None:
            return
        for end in (process.terminate, process.kill):
            with contextlib.suppress(ProcessLookupError):
                end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._wait(process)
                    return

    def _troubled(self, problem: str) -> None:
        """The same again, without an answer in between, is no news."""
        problem = f"the broker of {LOCAL_BROKER}: {problem}"
        if problem != self._problem:
            self._problem = problem
            logger.warning("%s", problem)
            for stream in self._streams.values():
                self._told(stream, problem)


def names_broker(stream: Object) -> bool:
    """Whether a stream, as it is stored, reads from the local broker or writes to it."""
    spec = stream.get("spec") or {}
    return any((spec.get(end) or {}).get("uri") == LOCAL_BROKER for end in ("source", "sink"))


def configuration(home: Path, port: int, password: str, name: str) -> Object:
    """Of nats-server: for this machine alone, with one user, and no message only in memory when it is acknowledged."""
    return {
        "server_name": name,
        "listen": f"{HOST}:{port}",
        "max_payload": _LARGEST_MESSAGE,
        "authorization": {"user": USER, "password": password},
        "jetstream": {"store_dir": str(home), "sync_interval": "always", "max_memory_store": _MEMORY_BYTES},
    }


def _binary() -> str:
    """The one beside the interpreter, else that on PATH. Raises UserError. It takes a moment: run it in a thread."""
    found = shutil.which("nats-server", path=f"{sys.prefix}/bin") or shutil.which("nats-server")
    if found is None:
        raise UserError(f"it needs nats-server, which is not installed: {_INSTALL}")
    try:
        said = subprocess.run([found, "--version"], check=False, capture_output=True, text=True, timeout=30, env={})
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{found} cannot be run ({error}): {_INSTALL}") from error
    version = re.search(r"v(\d+)\.(\d+)", said.stdout)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        has = said.stdout.strip()[:100] or "something else"
        raise UserError(f"{found} is {has}; {'.'.join(map(str, OLDEST))} or newer is needed: {_INSTALL}")
    return found


def _port(path: Path) -> int:
    """The one it had before; at first one that is free. Raises RetryLater while there is none."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        port = int(path.read_text())
        if not _free(port):
            raise RetryLater(
                f"port {port}, which it had before, is taken by another program: end that, or remove {path} to give "
                "it another port; it is tried again"
            )
        return port
    # Not one that the kernel gives to connections: a client that tries again and again could be given it.
    for port in _PORTS:
        if _free(port):
            write_whole(path, f"{port}\n")
            return port
    raise RetryLater(f"none of the ports {_PORTS[0]} to {_PORTS[-1]} is free; it is tried again")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def _password(path: Path) -> str:
    """Made once."""
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    made = secrets.token_urlsafe(32)
    write_whole(path, f"{made}\n")
    return made


async def _answers(port: int, name: str) -> bool:
    """Whether the one of that name greets: it does so when its messages are read back."""
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                verb, _, body = (await reader.readline()).partition(b" ")
            finally:
                writer.close()
                await writer.wait_closed()
        return verb == b"INFO" and json.loads(body).get("server_name") == name
    except (OSError, ValueError, TimeoutError):
        return False
