"""`modelyard push`: from a path of this machine to a place that a cluster reads from."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from modelyard.api import settings
from modelyard.base.errors import ModelyardError, UserError
from modelyard.base.quantities import bytes_text
from modelyard.cli import output
from modelyard.cli.session import Session, Where, run, server_options
from modelyard.control.kube import resources
from modelyard.sdk import objects
from modelyard.storage import credentials
from modelyard.storage.location import OBJECT_STORES, parse
from modelyard.storage.push import Pushed, measure, push
from modelyard.storage.stores import Store

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_MOST_BYTES = 64 * 2**10
_FORMS = ", ".join(f"{each}://BUCKET/PREFIX" for each in OBJECT_STORES)


@click.command(
    epilog="Example: modelyard push models/digits.onnx --to s3://models/pushed",
    short_help="Upload a file or folder, and print the uri to write into a manifest.",
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--to", metavar="URI", help="Prefix of a store; that of the platform's settings (modelStore) by default.")
@click.option(
    "--credentials",
    "keys",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Lines NAME=VALUE with the keys of the store, instead of the environment.",
)
@output.formats("yaml", "json")
@server_options
def command(where: Where, path: Path, to: str | None, keys: Path | None, form: str | None) -> None:
    """Upload a file or folder under the digest of its content, and print what to write into a Model.

    What is there already is not sent again. Keys come from the environment, under the names that each store's own tools
    use (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL; GOOGLE_SERVICE_ACCOUNT_KEY;
    AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY), or from a file; never from the command line.
    """
    target = to or run(where, _model_store)
    store = _opened(target, keys)
    found = measure(path)
    with _progress(f"{path} to {store.uri}", found.size_bytes) as told:
        made = asyncio.run(push(path, found, store, told))
    _print(made, form)


async def _model_store(session: Session) -> str:
    """`modelStore.uri` of the settings. Raises UserError that says what to do without one."""
    hint = f"name a prefix with --to {_FORMS}"
    if session.target.local is not None:
        raise UserError(f"the server of this project reads paths of this machine, so nothing need be pushed; or {hint}")
    body = await objects.get(session.client, resources.CONFIGMAPS, settings.NAMESPACE, settings.NAME)
    found = settings.parse(((body or {}).get("data") or {}).get(settings.KEY, ""))
    if found.model_store is None:
        raise UserError(f"{settings.SUBJECT} has no modelStore: {hint}")
    return found.model_store.uri


def _opened(uri: str, keys: Path | None) -> Store:
    scheme = parse(uri, str(Path.cwd())).scheme
    if scheme not in OBJECT_STORES:
        raise UserError(f"--to {uri}: expected {_FORMS}, since a path of this machine means nothing elsewhere")
    given = _read(keys) if keys else credentials.ambient(scheme, os.environ)
    try:
        return Store.open(uri, credentials=given)
    except ModelyardError as error:
        source = str(keys) if keys else "the environment"
        raise UserError(error.message.replace("the Secret", source)) from error


def _read(path: Path) -> dict[str, str]:
    """As of `kubectl create secret generic --from-env-file`."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--credentials {path} cannot be read: expected a text file of lines NAME=VALUE") from error
    if len(text) > _MOST_BYTES:
        raise UserError(f"--credentials {path} is larger than {_MOST_BYTES >> 10} KiB")
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(f"--credentials {path}: line {number} is not NAME=VALUE")
        found[match[1]] = match[2]
    return found


@contextmanager
def _progress(label: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    shown = f"{label} ({bytes_text(size_bytes)})"
    with click.progressbar(length=max(1, size_bytes), label=shown, file=sys.stderr) as bar:
        yield bar.update


def _print(made: Pushed, form: str | None) -> None:
    if form is not None:
        output.emit({"uri": made.uri, "digest": made.digest}, form)
        return
    what = f"{made.files} file{'s' if made.files > 1 else ''}, {bytes_text(made.size_bytes)}"
    there = "" if made.sent else "; all of it was there already"
    click.echo(f"pushed {what}{there}; write into the Model, or into spec.model of a service:", err=True)
    click.echo(f"uri: {made.uri}")
    click.echo(f"digest: {made.digest}")
