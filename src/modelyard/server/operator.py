"""The operator: waits for the lead with warm caches, decides while it has it, and ends when it is lost.

`python3 -m modelyard.server.operator`. Any number may run; one decides. Before every write the Lease is looked at on a
clock that goes on while the process is stopped, so that one that was stopped for long changes nothing when it wakes.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping

from modelyard import __version__
from modelyard.api import settings
from modelyard.base.errors import ModelyardError
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import Client
from modelyard.control.kube.lease import REQUEST_SECONDS, Election, LeaseLostError
from modelyard.server import deciding, operator_options, status_pages
from modelyard.server.leading import Seams, leading, standing_by
from modelyard.server.operator_options import Options
from modelyard.server.status_pages import Status

log = logging.getLogger(__name__)
LEASE = "modelyard-operator"
_END_SECONDS = 4.0
"""For an orderly end; what takes longer is left."""


class _ToldToEndError(ModelyardError):
    """By a signal."""


async def operate(
    options: Options, environ: Mapping[str, str], ends: asyncio.Event, seams: Seams, told: Callable[[int], None]
) -> None:
    """Until `ends` is set. told: called with the port of the pages. Raises ModelyardError when it must end earlier."""
    config = options.client(environ)
    identity = operator_options.identity(options)
    async with Client(config, attempts=1, timeout=REQUEST_SECONDS) as own:
        election = Election(own, namespace=settings.NAMESPACE, name=LEASE, identity=identity)
        status = Status(election)
        host, port = operator_options.split(options.http)
        async with status_pages.serving(status, host, port) as listening:
            told(listening)
            log.info("Modelyard %s waits for the lead as %s at %s", __version__, identity, config.server)
            try:
                stop: list[Callable[[], None]] = []
                async with asyncio.TaskGroup() as group:
                    group.create_task(_elect(election, stop))
                    group.create_task(_end(ends, stop))
                    group.create_task(_lead(options, config, status, seams, stop))
            except* _ToldToEndError:
                log.info("this operator was told to end, and has ended in order")
            finally:
                # Whoever waits leads at once, and not when the Lease has run out.
                await election.release()


async def _elect(election: Election, stop: list[Callable[[], None]]) -> None:
    try:
        await election.run()
    except LeaseLostError:
        # Before anything else: the gateways must find whoever leads now.
        _at_once(stop)
        raise


async def _end(ends: asyncio.Event, stop: list[Callable[[], None]]) -> None:
    await ends.wait()
    _at_once(stop)
    raise _ToldToEndError("this operator was told to end")


def _at_once(stop: list[Callable[[], None]]) -> None:
    asyncio.get_running_loop().call_later(_END_SECONDS, _leave)
    for each in stop:
        each()


def _leave() -> None:
    log.error("this operator does not end in order within %s seconds; it is left", _END_SECONDS)
    logging.shutdown()
    os._exit(1)


async def _lead(
    options: Options, config: ClientConfig, status: Status, seams: Seams, stop: list[Callable[[], None]]
) -> None:
    async with (
        Client(config, guard=status.election.guard) as client,
        standing_by(options, client, seams) as ready,
    ):
        await status.election.leads.wait()
        async with leading(ready, stop.append) as figures:
            status.figures, status.decides = figures, True
            try:
                await asyncio.Event().wait()
            finally:
                status.decides = False


def main(arguments: list[str], environ: Mapping[str, str], seams: Seams | None = None) -> int:
    """Exit status. Logs go to stdout."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        options = operator_options.parse(arguments, environ)
        asyncio.run(_run(options, environ, seams or Seams()))
    except BaseExceptionGroup as group:
        return _failed(deciding.told(group))
    except ModelyardError as error:
        return _failed(error)
    return 0


def _failed(error: BaseException) -> int:
    if isinstance(error, ModelyardError):
        log.error("%s; this operator ends", error.message)
    else:
        log.error("a defect of Modelyard; this operator ends", exc_info=error)
    return 1


async def _run(options: Options, environ: Mapping[str, str], seams: Seams) -> None:
    ends = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, ends.set)
    await operate(options, environ, ends, seams, lambda port: log.info("pages at port %s", port))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
