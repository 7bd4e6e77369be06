"""`modelyard logs`: what the processes of a local server wrote."""

import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import click

from modelyard.base.errors import UserError
from modelyard.base.ids import DEFAULT_NAMESPACE
from modelyard.sdk import find

_PAUSE_SECONDS = 0.2
_SUFFIX = ".log"


@click.command(epilog="Example: modelyard logs digits --tail 20 -f", short_help="Show what processes wrote.")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many last lines of each process.")
@click.option("--revision", metavar="NAME", help="Of this revision instead of the newest.")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Namespace of the object.")
def command(name: str, follow: bool, tail: int | None, revision: str | None, namespace: str) -> None:
    """Show what the replicas of the service NAME wrote, or reading the model NAME; also after the server stopped."""
    logs = find.data_folder() / "logs"
    chosen = select(
        [each.name for each in logs.glob(f"*{_SUFFIX}")] if logs.is_dir() else [], name, namespace, revision
    )
    if not chosen:
        raise UserError(
            f"no process of {name} has written anything in namespace {namespace}; 'modelyard why {name}' says more"
        )
    width = max(len(each) for each in chosen) - len(_SUFFIX)
    files = [File(logs / each, each.removesuffix(_SUFFIX).ljust(width) if len(chosen) > 1 else "") for each in chosen]
    try:
        for each in files:
            each.start(tail)
        while follow:
            if not sum(each.more() for each in files):
                time.sleep(_PAUSE_SECONDS)
    finally:
        for each in files:
            each.close()


def select(files: Iterable[str], name: str, namespace: str, revision: str | None = None) -> list[str]:
    """The log files of the newest revision of a service; of reading a model if there is none."""
    replica = re.compile(rf"({re.escape(name)}-svc-(\d+))\.{re.escape(namespace)}-(\d+)\.log")
    task = re.compile(
        rf"({re.escape(name)}|{re.escape(name)}-[0-9a-f]{{8}}-model)-prepare-[0-9a-f]{{8}}-(\d+)\."
        rf"{re.escape(namespace)}\.log"
    )
    files = list(files)
    replicas = [(int(found[2]), int(found[3]), found[1], each) for each in files if (found := replica.fullmatch(each))]
    if revision is not None:
        return [each for _, _, of, each in sorted(replicas) if of == revision]
    if replicas:
        newest = max(number for number, *_ in replicas)
        return [each for number, _, _, each in sorted(replicas) if number == newest]
    return sorted(each for each in files if task.fullmatch(each))


@dataclass
class File:
    """One log file that may be rotated while it is read."""

    path: Path
    prefix: str
    _source: BinaryIO | None = field(default=None, init=False)
    _rest: bytes = field(default=b"", init=False)

    def start(self, tail: int | None) -> None:
        """Print what is there."""
        self._open()
        with ExitStack() as stack:
            parts: list[Iterable[bytes]] = []
            with suppress(FileNotFoundError):  # nothing was rotated yet
                parts.append(stack.enter_context(self.path.with_name(f"{self.path.name}.1").open("rb")))
            if self._source is not None:
                parts.append(self._source)
            lines = chain.from_iterable(parts)
            self._print(lines if tail is None else deque(lines, maxlen=tail))

    def more(self) -> bool:
        """Print what was added. -> whether there was anything."""
        if self._source is None:
            self._open()
            if self._source is None:
                return False
        found = self._source.read(1 << 20)
        if found:
            *whole, self._rest = (self._rest + found).split(b"\n")
            self._print(whole)
            return True
        if self._rotated():
            self._print(self._source.read().splitlines())  # written between the two looks
            self.close()
            return True
        return False

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _open(self) -> None:
        try:
            self._source = self.path.open("rb")
        except FileNotFoundError:
            self._source = None

    def _rotated(self) -> bool:
        assert self._source is not None

        mine = os.fstat(self._source.fileno())
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return True
        return now.st_ino != mine.st_ino or now.st_size < self._source.tell()

    def _print(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            text = line.rstrip(b"\r\n").decode(errors="replace")
            click.echo(f"{self.prefix}  {text}" if self.prefix else text)
        sys.stdout.flush()
