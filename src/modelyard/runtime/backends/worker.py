"""A model that runs in a worker process of its own."""

import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from modelyard.runtime.backends import speaking
from modelyard.runtime.backends.port import LoadFailed, WorkerDied, WorkerMissing
from modelyard.runtime.backends.speaking import SpeakingBackend
from modelyard.runtime.worker import process as processes
from modelyard.runtime.worker import python_worker
from modelyard.runtime.worker.conversation import StartRefused
from modelyard.runtime.worker.process import WorkerProcess
from modelyard.wire.place import ENV_MODEL
from modelyard.wire.work import ModelWork

# -P: imports nothing that lies beside the file. -u: what the model prints is logged even if it is killed.
_OWN_WORKER = (sys.executable, "-P", "-u", os.path.abspath(python_worker.__file__))
_AT_ONCE = 2
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0


class WorkerBackend(SpeakingBackend):
    """A dead worker is started again with the next batch, with growing pauses until one succeeds."""

    def __init__(
        self, start: Callable[[], Awaitable[WorkerProcess]], worker: WorkerProcess, *, hurry: bool = False
    ) -> None:
        super().__init__(worker)
        self._start = start
        self._hurry = hurry
        self._worker = worker
        self._deaths = 0
        self._not_before = 0.0
        self._closed = False

    @classmethod
    async def open(
        cls,
        work: ModelWork,
        path: Path,
        *,
        threads: int,
        scratch: Path,
        own: tuple[str, ...] = _OWN_WORKER,
        hurry: bool = False,
    ) -> "WorkerBackend":
        """Load the model in a new process: the command of the work, else `own`, our worker for scikit-learn by default.

        path: the model's file or folder. hurry: one that ended is started again without growing pauses, for callers who
        look for the rows that end it. Raises LoadFailed.
        """
        argv = work.command or own
        texts = speaking.hello(work, path, threads, scratch)
        variables = processes.environment(os.environ, threads, str(scratch)) | {ENV_MODEL: dict(texts)["path"]}

        async def start() -> WorkerProcess:
            try:
                return await WorkerProcess.start(argv, variables, texts, seconds=speaking.LOAD_SECONDS)
            except StartRefused as error:
                raise LoadFailed(error.reason, error.message, retry=error.retry) from error

        return cls(start, await start(), hurry=hurry)

    @property
    def worker(self) -> WorkerProcess:
        """See `SpeakingBackend.worker`."""
        return self._worker

    @property
    def pid(self) -> int:
        """The process that runs the model now."""
        return self._worker.pid

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed = True
        await self._worker.close()

    async def _again(self) -> None:
        if self._closed:
            raise WorkerDied("the model is being stopped")
        left = self._not_before - time.monotonic()
        if left > 0:
            raise WorkerDied("the model's process ended and is started again soon", retry_after_seconds=left)
        await self._worker.close(0)
        try:
            worker = await self._start()
        except LoadFailed as error:
            self._died()
            message = f"the model's process cannot be started again: {error.message}"
            raise WorkerMissing(message, self._pause()) from error
        if not self.is_same(worker):
            await worker.close(0)
            self._died()
            raise WorkerMissing("the model's process came back with another signature", self._pause())
        self._worker = worker

    def _note(self, *, died: bool) -> float:
        if died:
            self._died()
        else:
            self._deaths = 0
        return self._pause()

    def _died(self) -> None:
        """Two restarts are due at once: for a batch, and for the one request in it that killed the worker."""
        self._deaths += 1
        self._not_before = time.monotonic() + self._pause()

    def _pause(self) -> float:
        if self._deaths <= _AT_ONCE or self._hurry:
            return 0.0
        return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._deaths - _AT_ONCE - 1, 10), _LONGEST_PAUSE_SECONDS)
