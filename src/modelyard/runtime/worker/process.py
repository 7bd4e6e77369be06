"""One worker process: started, spoken to over its two pipes, watched, ended.

It is bound to this process (`base.launch`), leads a session of its own and gets nothing but two pipes, the log and an
environment of its own. What it writes is not trusted: whatever is no valid frame ends it.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.base import launch
from modelyard.runtime.worker.conversation import ProcessEnded, Worker
from modelyard.runtime.worker.pipes import Inbox, Log, Outbox
from modelyard.wire import frames
from modelyard.wire.place import ENV_WORK, THREAD_VARIABLES

_DIE_SECONDS = 5.0
_REAP_SECONDS = 0.01
_MOST_LOOKS = 300
_OURS = "MODELYARD_"
_ALLOWED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"})


def environment(outer: Mapping[str, str], threads: int, scratch: str) -> dict[str, str]:
    """A worker's environment: that of its server if a driver chose it for this model, else an allow-listed part of it.

    Of Modelyard's own variables only the one that tells whose a stray process is. Thread counts are set unless the
    model's owner did; temporary files go to `scratch`. ONNX Runtime tells its maker nothing of the model.
    """
    chosen = ENV_WORK in outer
    found = {
        name: value
        for name, value in outer.items()
        if (name == ENV_WORK or not name.startswith(_OURS)) and (chosen or name in _ALLOWED or name.startswith("LC_"))
    }
    counts = {name: str(threads) for name in THREAD_VARIABLES}
    return {**counts, "ORT_DISABLE_TELEMETRY": "1", **found, "TMPDIR": scratch}


class WorkerProcess(Worker):
    """A worker that this process has started."""

    def __init__(self, process: asyncio.subprocess.Process, pipes: "_Pipes") -> None:
        super().__init__(pipes.inbox, pipes.outbox)
        self._process = process
        self._log = pipes.log
        self._killed = False

    @classmethod
    async def start(
        cls, argv: Sequence[str], variables: Mapping[str, str], texts: frames.Texts, *, seconds: float
    ) -> "WorkerProcess":
        """Start the program and have it load the model that HELLO's texts name.

        Raises StartRefused when it says no, ends, says something else or nothing within `seconds`.
        """
        worker = await _spawn(argv, variables)
        await worker.greet(argv[0], texts, seconds)
        return worker

    @property
    def pid(self) -> int:
        """The process, which is also the id of its process group and session."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether a call may be tried."""
        return self._process.returncode is None and self._inbox.broken is None and not self._killed

    async def close(self, grace_seconds: float = 2.0) -> None:
        """End the worker by closing its input, then by force; idempotent."""
        self._outbox.close()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._kill()
        await self._process.wait()
        await self._reap()
        self._inbox.close()
        self._log.close()

    async def _reap(self) -> None:
        """What it had started is ours where we are the first process of a container, and would stay as zombies."""
        for _ in range(_MOST_LOOKS):
            if not _has_children(self.pid):
                return
            await asyncio.sleep(_REAP_SECONDS)

    def _abandon(self) -> None:
        self._kill()

    def _kill(self) -> None:
        """Whatever is left of its process group; itself, if it has not made one yet."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _obituary(self) -> ProcessEnded:
        """How it ended, with the last lines of its log."""
        try:
            async with asyncio.timeout(_DIE_SECONDS):
                status = await self._process.wait()
                await self._log.ended.wait()
        except TimeoutError:
            return await self.end("the worker closed its pipes and was ended")
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += ", perhaps for lack of memory"
        else:
            how = f"ended with status {status}"
        lines = "".join(f"\n  {line}" for line in self._log.lines)
        return ProcessEnded(f"the worker {how}" + (f"; its last lines:{lines}" if lines else ""))


def _has_children(group: int) -> bool:
    """Whether a process of the group is a child of ours and runs; those that have ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Pipes:
    """Our ends."""

    inbox: Inbox
    outbox: asyncio.WriteTransport
    log: Log

    def close(self) -> None:
        self.inbox.close()
        self.outbox.close()
        self.log.close()


async def _spawn(argv: Sequence[str], variables: Mapping[str, str]) -> WorkerProcess:
    loop = asyncio.get_running_loop()
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    our_log, their_log = os.pipe()
    inbox, log = Inbox(), Log()
    outbox, _ = await loop.connect_write_pipe(lambda: Outbox(inbox), os.fdopen(our_output, "wb", buffering=0))
    await loop.connect_read_pipe(lambda: inbox, os.fdopen(our_input, "rb", buffering=0))
    await loop.connect_read_pipe(lambda: log, os.fdopen(our_log, "rb", buffering=0))
    pipes = _Pipes(inbox, outbox, log)
    try:
        process = await asyncio.create_subprocess_exec(
            *launch.command(argv, descriptors={3: their_input, 4: their_output}, limits={"core": 0}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=their_log,
            stderr=their_log,
            env=variables,
            pass_fds=(their_input, their_output),
        )
    except BaseException:
        pipes.close()
        raise
    finally:
        for descriptor in (their_input, their_output, their_log):
            os.close(descriptor)
    return WorkerProcess(process, pipes)
