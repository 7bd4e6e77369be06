"""`modelyard requests`: what callers asked, and what they were answered: the gateway's log for people."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click

from modelyard.base.errors import UserError
from modelyard.base.ids import DEFAULT_NAMESPACE
from modelyard.cli import output
from modelyard.cli.session import Where, server_options
from modelyard.sdk import find

Object = dict[str, Any]

_PAUSE_SECONDS = 0.2
_LONGEST_LINE = 64 * 1024
_TITLES = ("TIME", "STATUS", "MS", "REVISION", "CALLER", "REQUEST", "ID")
_WIDTHS = [24, 6, 6, 24, 16, 44]


@click.command(epilog="Example: modelyard requests digits -f", short_help="Show what callers asked and were answered.")
@click.argument("name", required=False, metavar="[SERVICE]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), default=20, show_default=True, help="So many last requests.")
@click.option("--failed", is_flag=True, help="Only those answered with 400 or more, or with an error of gRPC.")
@output.formats("json")
@server_options
def command(where: Where, name: str | None, follow: bool, tail: int, failed: bool, form: str | None) -> None:
    """Show the latest requests for SERVICE, or for all: also after the server ended. -o json prints whole lines."""
    path = _data(where) / "server" / "access.log"
    namespace = where.namespace or DEFAULT_NAMESPACE
    if not path.exists():
        raise UserError(f"{path} is missing: the gateway of this project has not run yet; start it with 'modelyard up'")
    model = f"{name}.{namespace}" if name else ""
    if form is None:
        click.echo(_row(_TITLES))
    show = _print if form is None else _emit
    with closing(Log(path, lambda entry: chosen(entry, model, failed=failed))) as log:
        for entry in log.last(tail):
            show(entry)
        while follow:
            for entry in log.more():
                show(entry)
            time.sleep(_PAUSE_SECONDS)


def _data(where: Where) -> Path:
    """Of a local server. Raises UserError for others, whose gateways write to their own logs."""
    if where.context is None:
        return find.data_folder()
    local = find.find(where.context).local
    if local is None:
        raise UserError(
            "the gateway of a cluster writes its requests to the logs of its pods: kubectl logs -n modelyard-system "
            "-l app.kubernetes.io/component=gateway --prefix"
        )
    return local.data


def chosen(entry: Object, model: str, *, failed: bool) -> bool:
    """Whether a line is asked for. model: canonical id, "" for all; of models that there are not, by their path."""
    if failed and _number(entry, "status") < 400 and not _number(entry, "grpcStatus"):
        return False
    if not model:
        return True
    if entry.get("model"):
        return bool(entry["model"] == model)
    called = str(entry.get("path", "")).split("/")[3:4]
    return called in ([model], [model.removesuffix(f".{DEFAULT_NAMESPACE}")])


class Log:
    """The file and its predecessor, which may change places while they are read."""

    def __init__(self, path: Path, wanted: Callable[[Object], bool]) -> None:
        self._path = path
        self._wanted = wanted
        self._file: BinaryIO | None = None
        self._rest = b""

    def last(self, count: int) -> Iterator[Object]:
        """The last ones that are wanted."""
        found: deque[Object] = deque(maxlen=count)
        with suppress(FileNotFoundError), self._path.with_name(f"{self._path.name}.1").open("rb") as former:
            found.extend(self._entries(former))
        with suppress(FileNotFoundError):
            self._file = self._path.open("rb")
            found.extend(self._entries(self._file))
        yield from found

    def more(self) -> Iterator[Object]:
        """What has come since."""
        if self._file is None:
            with suppress(FileNotFoundError):
                self._file = self._path.open("rb")
        if self._file is None:
            return
        moved = self._has_moved(self._file)
        yield from self._entries(self._file)
        if moved:  # and what was written until then has been read
            self.close()
            self._rest = b""

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _has_moved(self, file: BinaryIO) -> bool:
        """Envoy goes on writing to a file that was renamed, for a moment: the new one has something first."""
        mine = os.fstat(file.fileno())
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        return now.st_ino != mine.st_ino and now.st_size > 0

    def _entries(self, file: BinaryIO) -> Iterator[Object]:
        while chunk := file.read(1 << 20):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                entry = parse(line)
                if entry is not None and self._wanted(entry):
                    yield entry
            if len(self._rest) > _LONGEST_LINE:
                self._rest = b""


def parse(line: bytes) -> Object | None:
    """A line of the log; None for what is none, such as the rest of one that a full disk cut."""
    try:
        found = json.loads(line) if len(line) <= _LONGEST_LINE else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _print(entry: Object) -> None:
    status = str(entry.get("status", ""))
    if _number(entry, "grpcStatus"):
        status += f"/{entry['grpcStatus']}"
    revision = str(entry.get("revision") or entry.get("model") or "-").partition(".")[0]
    asked = f"{entry.get('method', '')} {entry.get('path', '')}"
    cells = (
        str(entry.get("time", "")),
        status,
        f"{_number(entry, 'milliseconds'):.0f}",
        revision,
        str(entry.get("user") or "-"),
        asked,
        str(entry.get("id", "")),
    )
    click.echo(_row(cells))


def _row(cells: tuple[str, ...]) -> str:
    """Columns of fixed widths, since the widest cell may be still to come; nothing is cut."""
    shown = ["".join(each if each.isprintable() else "?" for each in cell) for cell in cells]
    return "  ".join([*(cell.ljust(width) for cell, width in zip(shown, _WIDTHS, strict=False)), shown[-1]])


def _emit(entry: Object) -> None:
    click.echo(json.dumps(entry, separators=(",", ":")))


def _number(entry: Object, name: str) -> float:
    value = entry.get(name, 0)
    return float(value) if isinstance(value, int | float) else 0.0
