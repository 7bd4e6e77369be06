"""`modelyard up`: everything on this machine, in the foreground, until Ctrl-C."""

import asyncio
import signal
import sys
from pathlib import Path

import click

import modelyard
from modelyard.base import ids
from modelyard.base.errors import UserError
from modelyard.cli import apply
from modelyard.cli.board import Board
from modelyard.cli.faults import refuse_faults
from modelyard.cli.session import Session
from modelyard.control.gateway import addresses
from modelyard.sdk import find, manifests
from modelyard.sdk.manifests import Manifests
from modelyard.server import local
from modelyard.server.folder import NAME


@click.command(
    epilog="Example: modelyard up . -f service.yaml",
    short_help="Start Modelyard for a project folder.",
)
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option(
    "-f",
    "--filename",
    "paths",
    multiple=True,
    help="Apply this manifest, or all of a folder, once started. Repeatable.",
)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where state is kept; FOLDER/.modelyard by default.")
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    help="Address of the gateway; port 0: any free one. At an address that other machines reach, callers need tokens.",
)
@click.option(
    "--listen-internal",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Where --listen is an address that other machines reach: the port on 127.0.0.1 for this one; 0: any free one.",
)
@click.option("--ephemeral", is_flag=True, help="Keep nothing: the data folder is removed at the end.")
def command(
    folder: Path, paths: tuple[str, ...], data_dir: Path | None, listen: str, listen_internal: int, ephemeral: bool
) -> None:
    """Start the API server, the control loop and the gateway for the project in FOLDER (default: this one).

    Models run as processes of this machine and end with it. It applies nothing unless told with -f.
    """
    host, port = _address(listen)
    options = local.Options(
        root=folder,
        data=data_dir or folder / NAME,
        host=host,
        port=port,
        internal_port=listen_internal,
        ephemeral=ephemeral,
    )
    read = manifests.read(paths) if paths else None
    if read is not None:
        refuse_faults(read, ids.DEFAULT_NAMESPACE)
    asyncio.run(_run(options, read))


async def _run(options: local.Options, read: Manifests | None) -> None:
    """Until a signal, which also ends a start that is not done yet."""
    board = Board(sys.stdout)
    ready, stop = asyncio.Event(), asyncio.Event()
    work = asyncio.create_task(_work(options, read, board, (ready, stop)))

    def asked() -> None:
        stop.set()
        if not ready.is_set():
            work.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked)
    try:
        await work
    except asyncio.CancelledError:
        board.say("stopped before it was ready")
        return
    board.say("stopped")


async def _work(
    options: local.Options, read: Manifests | None, board: Board, told: tuple[asyncio.Event, asyncio.Event]
) -> None:
    ready, stop = told
    board.say(f"Modelyard {modelyard.__version__} is starting")
    async with local.running(options, changed=board.changed) as running:
        for line in _ways_in(running):
            board.say(line)
        board.say(f"kubeconfig  {running.folder.kubeconfig}")
        board.say(
            "Ready: apply a manifest from another terminal with 'modelyard apply -f FILE'; Ctrl-C stops everything"
        )
        if read is not None:
            await apply.apply_documents(_session(running), read.documents)
        ready.set()
        with board.live():
            await stop.wait()
        board.say("stopping: requests in flight are finished first")


def _session(running: local.Running) -> Session:
    target = find.of_data_folder(running.folder.data)
    return Session(client=running.client, target=target, namespace=target.config.namespace)


def _ways_in(running: local.Running) -> list[str]:
    lines = [f"gateway     {running.gateway}"]
    if running.internal == running.gateway:
        return lines
    lines.append(f"internal    {running.internal} (this machine alone; services with visibility: internal answer here)")
    if running.gateway.startswith("http:"):
        lines.append(
            "warning     other machines call in plain text, and so send their tokens: give the gateway a certificate "
            "(docs/how-to/tls.md)"
        )
    return lines


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--listen {listen}: expected HOST:PORT, as in 127.0.0.1:8080")
    return addresses.host(host.strip("[]")), int(port)
