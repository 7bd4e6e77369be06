"""`python -m modelyard.runtime.front`: serve the models of a WorkSpec where its place says.

Exit status: 0 after SIGTERM (143 before it has begun), 1 when it cannot serve (the report says why), 2 when it was not
started by Modelyard.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, UserError
from modelyard.runtime.backends.load import load
from modelyard.runtime.backends.port import Backend, LoadFailed
from modelyard.runtime.front.gateway import Gateway
from modelyard.runtime.front.server import Listen, serve
from modelyard.runtime.front.shadow import Shadow, asking
from modelyard.runtime.report import endpoint
from modelyard.runtime.report.file import ReportFile
from modelyard.storage.cache import Cache
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import ENV_LISTEN, ENV_SOCKET, Place, host_and_port

_log = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        place = Place.from_environment(os.environ)
    except UserError as error:
        _log.error(error.message)
        return 2
    file = ReportFile.of(place)
    state = _State(file)
    try:
        state.change(ready=False)  # a report of an earlier process may lie there
        uvloop.run(_run(place, _read(place), _listen(place), state))
    except Exception as error:
        failed = _failure(error)
        _log.error("cannot serve: %s", failed.failure.message if failed.failure else failed)
        file.write(failed)
        return 1
    return 0


class _State:
    """What the driver reads, replaced as a whole whenever a part of it changes."""

    def __init__(self, file: ReportFile) -> None:
        self._file = file
        self._now = reports.ServeReport()

    def change(self, **parts: Any) -> None:
        """Raise OSError where the file cannot be written."""
        self._now = msgspec.structs.replace(self._now, **parts)
        self._file.write(reports.Report(serve=self._now))

    def latest(self) -> bytes:
        """The report as it was written last."""
        return self._file.latest


def _read(place: Place) -> works.ServeWork:
    work = works.decode(Path(place.work).read_bytes()).serve
    if work is None:
        raise UserError(f"{place.work} does not set `serve`: it is work for another program")
    return work


def _listen(place: Place) -> Listen:
    """Raises UserError."""
    gateway = Gateway(place.gateway_digest) if place.gateway_digest else None
    if bool(place.socket) == bool(place.listen):
        raise UserError(f"either {ENV_SOCKET} or {ENV_LISTEN} must be set: where to listen")
    if place.socket:
        return Listen(socket=place.socket, gateway=gateway)
    host, port = host_and_port(ENV_LISTEN, place.listen)
    return Listen(host=host, port=port, gateway=gateway)


async def _run(place: Place, work: works.ServeWork, listen: Listen, state: _State) -> None:
    async with endpoint.offered(place.report_listen, state.latest):
        await _serve(place, work, listen, state)


async def _serve(place: Place, work: works.ServeWork, listen: Listen, state: _State) -> None:
    stop = asyncio.Event()
    serving = False
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        if serving:
            stop.set()
            state.change(ready=False)
        else:
            task.cancel()  # nothing is promised yet

    def on_ready(address: str) -> None:
        nonlocal serving
        serving = True
        names = tuple(model.name for model in work.models)
        state.change(ready=True, models=names)
        _log.info("serving %s on %s", ", ".join(names), address)

    comparisons = None
    if place.shadow and listen.gateway is not None:
        ask = asking(place.shadow, listen.gateway)
        comparisons = Shadow(ask, lambda found: state.change(shadow=found))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    async with contextlib.AsyncExitStack() as loaded:
        try:
            backends = await _load(place, work, loaded)
            await serve(work, backends, listen, stop=stop, ready=on_ready, comparisons=comparisons)
        except asyncio.CancelledError:
            _log.info("stopped before the models were loaded")


async def _load(place: Place, work: works.ServeWork, loaded: contextlib.AsyncExitStack) -> dict[str, Backend]:
    """Load one after another; `loaded` closes them."""
    cache = Cache(Path(place.cache))
    backends: dict[str, Backend] = {}
    for model in work.models:
        path = await asyncio.to_thread(cache.path, model.digest)
        scratch = Path(place.scratch) / model.name
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        backend = await load(model, path, threads=work.threads, scratch=scratch)
        loaded.push_async_callback(backend.close)
        backends[model.name] = backend
    return backends


def _failure(error: Exception) -> reports.Report:
    if isinstance(error, LoadFailed | StoreRefused | StoreUnavailable):
        return reports.failure(error.reason, error.message, retry=getattr(error, "retry", False))
    if isinstance(error, ModelyardError):
        return reports.failure(Reason.LOAD_FAILED, error.message)
    _log.exception("the server failed in a way that it should not")
    return reports.failure(Reason.INTERNAL_ERROR, f"the server failed: {type(error).__name__}: {error}")
