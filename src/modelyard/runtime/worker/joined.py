"""A worker in another container: reached by two FIFOs, neither started nor ended from here.

Its container is started again by whoever runs containers; what it prints is in that container's log. What it writes is
not trusted: whatever is no valid frame ends the conversation. See `wire.place.PIPE_REQUESTS`.

Source: fifo(7), open(2): who opens a FIFO to write waits for a reader.
"""

import asyncio
import contextlib
import os
import stat
import time
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.runtime.worker.conversation import ProcessEnded, StartRefused, Worker
from modelyard.runtime.worker.pipes import Inbox, Outbox
from modelyard.wire import frames
from modelyard.wire.place import PIPE_ANSWERS, PIPE_MODEL, PIPE_REQUESTS

_NAME = "in its container"
_MODE = 0o660
"""The worker may run as another user of the pod's group."""


def made(folder: Path) -> None:
    """New FIFOs, whatever was there. Raises OSError."""
    for name in (PIPE_REQUESTS, PIPE_ANSWERS):
        fresh = folder / f".{name}"
        fresh.unlink(missing_ok=True)
        os.mkfifo(fresh)
        fresh.chmod(_MODE)
        fresh.replace(folder / name)


def pointed(folder: Path, artifact: Path) -> None:
    """Let `model` be the artifact. Raises OSError."""
    fresh = folder / f".{PIPE_MODEL}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(artifact)
    fresh.replace(folder / PIPE_MODEL)


class JoinedWorker(Worker):
    """A worker that has opened its FIFOs."""

    def __init__(self, folder: Path, inbox: Inbox, outbox: asyncio.WriteTransport) -> None:
        super().__init__(inbox, outbox)
        self._folder = folder
        self._closed = False

    @classmethod
    async def join(cls, folder: Path, texts: frames.Texts, *, seconds: float) -> "JoinedWorker":
        """Wait for a worker and have it load the model that HELLO's texts name.

        Raises StartRefused when none comes, or it says no, ends, says something else or nothing within `seconds`.
        """
        began = time.monotonic()
        try:
            inbox, outbox = await _opened(folder, seconds)
        except TimeoutError:
            message = (
                f"no worker has opened its pipes within {seconds:g} s: its container does not run, or it waits for "
                "something else; the log of the container `worker` has more"
            )
            raise StartRefused(Reason.LOAD_FAILED, message, retry=True) from None
        except OSError as error:
            message = f"the worker's pipes in {folder} cannot be opened: {error.strerror or error}"
            raise StartRefused(Reason.LOAD_FAILED, message, retry=True) from error
        worker = cls(folder, inbox, outbox)
        await worker.greet(_NAME, texts, max(0.0, seconds - (time.monotonic() - began)))
        return worker

    @property
    def alive(self) -> bool:
        """See `Worker.alive`."""
        return self._inbox.broken is None and not self._closed

    async def ended(self) -> None:
        """Wait until no more calls may be tried."""
        await self._inbox.ended.wait()

    async def close(self, grace_seconds: float = 2.0) -> None:  # noqa: ARG002  nobody here can force it
        """End the conversation: a worker that reads on sees the end of its input. Another one finds new pipes."""
        self._abandon()
        await asyncio.sleep(0)  # the transports close in the next turn of the loop

    def _abandon(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the pod's folder is gone, and with it everybody
                made(self._folder)  # before the old ones are closed: nobody must open those once more
        self._inbox.close()
        self._outbox.close()

    async def _obituary(self) -> ProcessEnded:
        await self.close()
        return ProcessEnded("the worker in its container ended; the log of the container `worker` may say why")


async def _opened(folder: Path, seconds: float) -> tuple[Inbox, asyncio.WriteTransport]:
    """Raises TimeoutError and OSError."""
    answers = _open(folder / PIPE_ANSWERS, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with asyncio.timeout(seconds):
            requests = await _opened_by_both(folder / PIPE_REQUESTS)
    except BaseException:
        os.close(answers)
        raise
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    outbox, _ = await loop.connect_write_pipe(lambda: Outbox(inbox), os.fdopen(requests, "wb", buffering=0))
    await loop.connect_read_pipe(lambda: inbox, os.fdopen(answers, "rb", buffering=0))
    return inbox, outbox


async def _opened_by_both(path: Path) -> int:
    """To write. A thread waits for the reader; where nobody waits any more, we are the reader for a moment."""
    opening = asyncio.get_running_loop().run_in_executor(None, _open, path, os.O_WRONLY)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        releasing = _open(path, os.O_RDONLY | os.O_NONBLOCK)
        with contextlib.suppress(OSError):
            os.close(await opening)
        os.close(releasing)
        raise


def _open(path: Path, how: int) -> int:
    """A FIFO and nothing else: who shares the folder is not trusted."""
    descriptor = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no FIFO")
    return descriptor
