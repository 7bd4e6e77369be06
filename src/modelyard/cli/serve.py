"""`modelyard serve`: one model file, answered in the foreground, without a control plane."""

import asyncio
import re
import signal
import tempfile
from pathlib import Path

import click
import uvloop

from modelyard.base.errors import UserError
from modelyard.runtime.backends.load import load
from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.front.server import Listen
from modelyard.runtime.front.server import serve as serve_models
from modelyard.runtime.prepare import inspect
from modelyard.storage.cache import Cache
from modelyard.wire.place import Place
from modelyard.wire.report import PrepareReport
from modelyard.wire.work import ModelWork, PrepareWork, ServeWork, TensorSpec

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_THREADS = 1


@click.command(epilog="Example: modelyard serve models/iris.onnx --port 8080", short_help="Serve one model file.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model in URLs; by default that of the file.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="On 127.0.0.1; 0: any.")
@click.option("--trust", type=click.Choice(["pickle"]), help="Allow formats whose loading runs code of the file.")
def command(path: Path, name: str | None, port: int, trust: str | None) -> None:
    """Serve the model in PATH over the Open Inference Protocol V2 (REST, JSON) until Ctrl-C.

    No server, no manifest, nothing kept: for trying a file. Use 'modelyard up' for everything else.
    """
    name = name or re.sub(r"[^a-z0-9]+", "-", path.name.partition(".")[0].lower()).strip("-")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be a model's name: give --name with lower-case letters, digits and '-'")
    with tempfile.TemporaryDirectory(prefix="modelyard-serve-") as folder:
        cache, scratch = Path(folder, "cache"), Path(folder, "scratch")
        cache.mkdir()
        scratch.mkdir()
        place = Place(work="", report="", cache=str(cache), scratch=str(scratch), root=str(Path.cwd()))
        uvloop.run(_run(path.resolve(), name, port, trust or "", place))


async def _run(path: Path, name: str, port: int, trust: str, place: Place) -> None:
    found = await _prepare(path, trust, place)
    model = ModelWork(
        name=name,
        digest=found.digest,
        format=found.format,
        trust=trust,
        inputs=found.inputs,
        outputs=found.outputs,
    )
    await _serve(model, found, place, port)


async def _prepare(path: Path, trust: str, place: Place) -> PrepareReport:
    report = await inspect.run(PrepareWork(uri=str(path), trust=trust), place)
    if report.prepare is None:
        failure = report.failure
        message = failure.message if failure else "it cannot be read"
        raise UserError(f"{path}: {message.replace('`trust: pickle`', '--trust pickle')}")
    return report.prepare


async def _serve(model: ModelWork, found: PrepareReport, place: Place, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(address: str) -> None:
        url = f"http://{address}/v2/models/{model.name}"
        click.echo(f"serving {model.name} ({' '.join(filter(None, (found.format, found.format_version)))})")
        click.echo(f"  inputs    {_signature(found.inputs)}")
        click.echo(f"  outputs   {_signature(found.outputs)}")
        click.echo(f"  metadata  curl {url}")
        click.echo(f"  predict   POST {url}/infer; Ctrl-C stops")

    artifact = Cache(Path(place.cache)).path(found.digest)
    try:
        backend = await load(model, artifact, threads=_THREADS, scratch=Path(place.scratch))
        try:
            work = ServeWork(models=(model,), threads=_THREADS)
            await serve_models(work, {model.name: backend}, Listen(port=port), stop=stop, ready=ready)
        finally:
            await backend.close()
    except LoadFailed as error:
        raise UserError(error.message) from error


def _signature(tensors: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{each.name} {each.datatype} {list(each.shape)}" for each in tensors)
