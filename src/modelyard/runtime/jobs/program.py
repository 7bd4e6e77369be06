"""Runs a program to its end, tells how far it is, and commits what it left.

The program is a child with an environment of its own: what it leaves in OUTPUT_DIR is committed by this process, which
alone has the keys of the store. Of several nodes, rank 0 commits when all have ended well.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelyard.base import launch
from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.runtime.jobs.left import Left
from modelyard.runtime.jobs.progress import Progress
from modelyard.runtime.jobs.told import Told, read
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.stopping import unless
from modelyard.storage import credentials
from modelyard.storage import identity as identities
from modelyard.storage.stores import Store
from modelyard.wire.place import PROGRAM_OUTPUT, PROGRAM_PROGRESS, Place
from modelyard.wire.report import JobReport
from modelyard.wire.work import RunWork

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_LINES = 10
_LINE_CHARACTERS = 300
_OURS = "MODELYARD_"


class ProgramFailed(RetryLater):
    """The program ended with an error; another try may do better."""

    reason = Reason.PROGRAM_FAILED


@dataclass(frozen=True, kw_only=True, slots=True)
class _Folders:
    """What a program is given. output: empty at its start; progress: a file that it may write."""

    output: Path
    progress: Path


async def run(work: RunWork, place: Place, progress: Progress, stop: asyncio.Event) -> bool:
    """True when the program has ended well and its output is committed; False when it was stopped before.

    A program that has run in another container is not started, see `wire.place.PROGRAM_OUTPUT`.

    Raises Refused, ProgramFailed and what stores raise.
    """
    keys = {name: _keys(place, name) for name in ("output", "checkpoint")}
    left = None
    if work.output is not None:
        store = _store(work.output.uri, place, keys["output"])
        stopped, left = await unless(stop, Left.open(work, store, place.index))
        if stopped or left is None:
            return False
        if left.closed:
            await left.tidy()
            progress.report(left.report(Told()))
            return True
    folders = _folders(place)
    if place.program:
        told = read(folders.progress)
    else:
        variables = environment(work, place, folders, os.environ)
        if work.checkpoint:
            variables |= await _checkpoint(work, place, keys["checkpoint"])
        child = _Child(work, folders, progress, run=left.number if left else 0)
        ended = await child.live(_command(work, place, variables), stop)
        if ended is None:
            return False
        told = ended
    if left is None:
        progress.report(JobReport(done=True, percent=100, metrics=told.metrics))
        return True
    if not await left.commit(folders.output, told, attempt=place.attempt, stop=stop):
        return False
    progress.report(left.report(told))
    return True


def _folders(place: Place) -> _Folders:
    """Empty ones, or where the program of another container has been. Raises ProgramFailed."""
    if place.program:
        found = _Folders(output=Path(place.program) / PROGRAM_OUTPUT, progress=Path(place.program) / PROGRAM_PROGRESS)
        if found.output.is_symlink() or not found.output.is_dir():
            raise ProgramFailed(f"the program's container has left no folder {found.output}; it is run again")
        return found
    made = _Folders(output=Path(place.scratch) / "output", progress=Path(place.scratch) / "progress.json")
    shutil.rmtree(made.output, ignore_errors=True)
    made.output.mkdir(mode=0o700, parents=True)
    return made


def environment(work: RunWork, place: Place, folders: _Folders, outer: Mapping[str, str]) -> dict[str, str]:
    """What a program sees: what its driver chose, without our own variables, and what it needs to know.

    Names and meanings of the ranks are those of torchrun. Source: PyTorch, "torchrun (Elastic Launch)".
    """
    seen = {name: value for name, value in outer.items() if not name.startswith(_OURS)}
    python = _inside(place.root, work.python) if work.python else Path(sys.executable)
    seen["PATH"] = os.pathsep.join([str(python.parent), *filter(None, [seen.get("PATH")])])
    seen |= {"OUTPUT_DIR": str(folders.output), "PROGRESS_FILE": str(folders.progress)}
    host, _, port = place.master.rpartition(":")
    ranks = {
        "RANK": place.index,
        "WORLD_SIZE": work.nodes,
        "LOCAL_RANK": 0,
        "LOCAL_WORLD_SIZE": 1,
        "GROUP_RANK": place.index,
        "TORCHELASTIC_RESTART_COUNT": place.attempt - 1,
    }
    seen |= {name: str(value) for name, value in ranks.items()}
    seen["TORCHELASTIC_RUN_ID"] = work.job
    if place.master:
        seen |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    return seen


def _keys(place: Place, role: str) -> dict[str, str]:
    return credentials.take(Path(place.secrets) / role) if place.secrets else {}


def _store(uri: str, place: Place, keys: Mapping[str, str]) -> Store:
    identity = identities.of(place.account, os.environ)
    return Store.open(uri, root=place.root, credentials=keys, identity=identity)


async def _checkpoint(work: RunWork, place: Place, keys: Mapping[str, str]) -> dict[str, str]:
    store = _store(work.checkpoint, place, keys)
    found = await store.list()
    return {"CHECKPOINT_URI": store.uri, **({"RESUME": "1"} if found else {})}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Command:
    argv: tuple[str, ...]
    directory: Path
    variables: dict[str, str]


def _command(work: RunWork, place: Place, variables: dict[str, str]) -> _Command:
    directory = _inside(place.root, work.directory)
    if not directory.is_dir():
        raise Refused(Reason.INVALID, f"spec.run.workingDir: {directory} is not a folder; correct it")
    program = shutil.which(work.command[0], path=variables["PATH"])
    beside = directory / work.command[0]
    if program is None and beside.is_file() and os.access(beside, os.X_OK):
        program = str(beside)
    if work.python and not os.access(_inside(place.root, work.python), os.X_OK):
        raise Refused(
            Reason.ENVIRONMENT_MISSING,
            f"spec.run.environment.python: {_inside(place.root, work.python)} is no interpreter that can be run; "
            "make the environment, or correct the path",
        )
    if program is None:
        raise Refused(
            Reason.ENVIRONMENT_MISSING,
            f"spec.run.command: there is no program {work.command[0]!r} on PATH or in {directory}; install it, or "
            "correct the command",
        )
    return _Command(argv=(program, *work.command[1:]), directory=directory, variables=variables)


def _inside(root: str, path: str) -> Path:
    # Not resolved: the interpreter of a virtual environment is a link, and must be called by its own name.
    return Path(os.path.normpath(Path(root or ".") / path))


class _Child:
    """The program while it runs."""

    def __init__(self, work: RunWork, folders: _Folders, progress: Progress, *, run: int) -> None:
        self._work = work
        self._folders = folders
        self._progress = progress
        self._run = run
        self._lines: deque[str] = deque(maxlen=_LINES)

    async def live(self, command: _Command, stop: asyncio.Event) -> Told | None:
        """What it told last when it has ended well; None when it was stopped. Raises ProgramFailed."""
        _log.info("running %s in %s", " ".join(self._work.command), command.directory)
        process = await asyncio.create_subprocess_exec(
            *launch.command(command.argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=command.directory,
            env=command.variables,
        )
        try:
            async with asyncio.TaskGroup() as group:
                pumping = group.create_task(self._pump(process))
                watching = group.create_task(self._watch())
                stopping = group.create_task(stop.wait())
                ending = group.create_task(process.wait())
                await asyncio.wait([stopping, ending], return_when=asyncio.FIRST_COMPLETED)
                if not ending.done():
                    await self._terminate(process)
                _kill(process)  # what it left behind
                await process.wait()
                for each in (watching, stopping):
                    each.cancel()
                await asyncio.wait([pumping], timeout=1.0)
                pumping.cancel()
        finally:
            _kill(process)
        if stop.is_set():
            return None
        if process.returncode:
            raise ProgramFailed(self._obituary(process.returncode))
        return read(self._folders.progress)

    async def _pump(self, process: asyncio.subprocess.Process) -> None:
        """Its output goes to our log; the last lines are kept."""
        assert process.stdout is not None
        rest = ""
        while data := await process.stdout.read(1 << 16):
            with contextlib.suppress(OSError):
                os.write(2, data)
            *lines, rest = (rest + data.decode(errors="replace")).split("\n")
            self._lines.extend(line[:_LINE_CHARACTERS] for line in lines if line.strip())
            rest = rest[:_LINE_CHARACTERS]
        if rest.strip():
            self._lines.append(rest)

    async def _watch(self) -> None:
        while True:
            told = await asyncio.to_thread(read, self._folders.progress)
            self._progress.report(told.report(self._run))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _terminate(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._work.grace_seconds - 2.0):
                await process.wait()

    def _obituary(self, status: int) -> str:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        lines = "".join(f"\n  {line}" for line in self._lines)
        return f"{self._work.command[0]} {how}" + (f"; its last lines:{lines}" if lines else "")


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
