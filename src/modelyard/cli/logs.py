"""`modelyard logs`: what the processes of a local server wrote; of a cluster see `pod_logs`."""

import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import click

from modelyard.base.errors import UserError
from modelyard.base.ids import DEFAULT_NAMESPACE
from modelyard.cli import pod_logs, words
from modelyard.cli.session import Where, run, server_options
from modelyard.control.kube import resources
from modelyard.sdk import find

_PAUSE_SECONDS = 0.2
_SUFFIX = ".log"
_REPLICAS, _RUNNERS, _STREAMS, _READING = "replicas", "runners", "streams", "reading"
_SOURCES = {
    resources.MODELSERVICES: _REPLICAS,
    resources.MODELJOBS: _RUNNERS,
    resources.MODELSTREAMS: _STREAMS,
    resources.MODELS: _READING,
}

_OWNED = "-[0-9a-f]{8}-model"
_INLINE = {
    None: f"|(-stream)?{_OWNED}",
    _READING: f"|(-stream)?{_OWNED}",
    _REPLICAS: _OWNED,
    _RUNNERS: _OWNED,
    _STREAMS: f"-stream{_OWNED}",
}
"""How the Model behind NAME is called after it."""


@click.command(epilog="Example: modelyard logs digits --tail 20 -f", short_help="Show what processes wrote.")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many last lines of each process.")
@click.option("--revision", metavar="NAME", help="Of this revision instead of the newest.")
@server_options
def command(where: Where, name: str, follow: bool, tail: int | None, revision: str | None) -> None:
    """Show what the processes of NAME wrote; also after they or the server ended.

    Those are the replicas of a service, the runners of a job or stream, or what read a model. KIND/NAME names one of
    them.
    """
    kind, _, plain = name.rpartition("/")
    source = _source(kind) if kind else None
    target = find.find(where.context) if where.context else None
    if target is not None and target.local is None:
        resource = words.kind(kind) if kind else None
        asked = pod_logs.Wanted(name=plain, kind=resource, revision=revision or "", tail=tail, follow=follow)
        run(where, lambda session: pod_logs.show(session, asked))
        return
    folder = target.local.logs if target and target.local else find.data_folder() / "logs"
    _show(folder, name, Wanted(plain, where.namespace or DEFAULT_NAMESPACE, revision, source), follow, tail)


def _show(folder: Path, name: str, wanted: "Wanted", follow: bool, tail: int | None) -> None:
    """Files of this machine."""
    namespace = wanted.namespace
    chosen = _chosen(folder, wanted)
    if not chosen:
        raise UserError(
            f"no process of {name} has written anything in namespace {namespace}; 'modelyard why {name}' says more"
        )
    width = max(len(each) for each in chosen) - len(_SUFFIX)
    files: dict[str, File] = {}
    try:
        while True:
            late = bool(files)
            for name in chosen:
                if name not in files:
                    alone = len(chosen) == 1 and not late
                    files[name] = File(folder / name, "" if alone else name.removesuffix(_SUFFIX).ljust(width))
                    files[name].start(None if late else tail)
            if not follow:
                break
            if not sum(each.more() for each in files.values()):
                time.sleep(_PAUSE_SECONDS)
                chosen = _chosen(folder, wanted)  # runners come and go
    finally:
        for each in files.values():
            each.close()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose logs. source: only of replicas, runners, streams or reading; None: whichever there is."""

    name: str
    namespace: str = DEFAULT_NAMESPACE
    revision: str | None = None
    source: str | None = None


def select(files: Mapping[str, float], wanted: Wanted) -> list[str]:
    """The log files of the newest revision of a service, else of a job, else of a stream, else of reading a model.

    files: names, and when each was last written to; by that the newest of several jobs of one name is told.
    """
    name, namespace = re.escape(wanted.name), re.escape(wanted.namespace)
    replicas = _by_process(files, rf"({name}-svc-\d+)\.{namespace}-(\d+)\.log")
    streams = _by_process(files, rf"({name}-stream-\d+)\.{namespace}-(\d+)\.log")
    if wanted.revision is not None:
        return {**replicas, **streams}.get(wanted.revision, [])
    if replicas and wanted.source in (None, _REPLICAS):
        return replicas[max(replicas, key=_number)]
    runners = _by_process(files, rf"({name}-job-[0-9a-f]{{8}})\.{namespace}-(\d+)\.log")
    if runners and wanted.source in (None, _RUNNERS):
        return runners[max(runners, key=lambda each: max(files[file] for file in runners[each]))]
    if streams and wanted.source in (None, _STREAMS):
        return streams[max(streams, key=_number)]
    own = _INLINE[wanted.source]
    read = re.compile(rf"{name}({own})-prepare-[0-9a-f]{{8}}-(\d+)\.{namespace}\.log")
    return sorted(each for each in files if read.fullmatch(each))


def _number(revision: str) -> int:
    return int(revision.rpartition("-")[2])


def _by_process(files: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """Files by revision or job, each in the order of its processes."""
    found: dict[str, list[tuple[int, str]]] = {}
    for each in files:
        match = re.fullmatch(pattern, each)
        if match:
            found.setdefault(match[1], []).append((int(match[2]), each))
    return {owner: [name for _, name in sorted(numbered)] for owner, numbered in found.items()}


def _chosen(folder: Path, wanted: Wanted) -> list[str]:
    files = {}
    for path in folder.glob(f"*{_SUFFIX}") if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # rotated or removed just now
            files[path.name] = path.stat().st_mtime
    return select(files, wanted)


def _source(kind: str) -> str:
    resource = words.kind(kind)
    if resource not in _SOURCES:
        raise UserError(f"a {resource.kind} has no processes; expected {', '.join(each.kind for each in _SOURCES)}")
    return _SOURCES[resource]


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
