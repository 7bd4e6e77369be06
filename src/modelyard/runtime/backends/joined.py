"""A model whose worker runs in a container of the user's own image."""

import asyncio
import contextlib
import logging
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.runtime.backends import speaking
from modelyard.runtime.backends.port import LoadFailed, WorkerMissing
from modelyard.runtime.backends.speaking import SpeakingBackend
from modelyard.runtime.worker import joined
from modelyard.runtime.worker.conversation import StartRefused
from modelyard.runtime.worker.joined import JoinedWorker
from modelyard.wire import frames

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0


class JoinedBackend(SpeakingBackend):
    """A worker that is joined, and at once the next one when it died: whoever runs its container makes the pauses.

    patient: a batch waits for the next worker; else it fails at once, so that it is tried elsewhere.
    """

    def __init__(self, folder: Path, texts: frames.Texts, worker: JoinedWorker, *, patient: bool) -> None:
        super().__init__(worker)
        self._folder = folder
        self._texts = texts
        self._worker = worker
        self._patient = patient
        self._back = asyncio.Event()
        self._back.set()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    @classmethod
    async def open(cls, folder: Path, path: Path, texts: frames.Texts, *, patient: bool = False) -> "JoinedBackend":
        """Wait for the worker and have it load the model. folder: of its FIFOs. path: of the artifact.

        Raises LoadFailed.
        """
        try:
            await asyncio.to_thread(joined.pointed, folder, path)
            worker = await JoinedWorker.join(folder, texts, seconds=speaking.LOAD_SECONDS)
        except StartRefused as error:
            raise LoadFailed(error.reason, error.message, retry=error.retry) from error
        except OSError as error:
            message = f"the folder {folder} of the worker's pipes cannot be written: {error.strerror or error}"
            raise LoadFailed(Reason.LOAD_FAILED, message, retry=True) from error
        return cls(folder, texts, worker, patient=patient)

    @property
    def worker(self) -> JoinedWorker:
        """See `SpeakingBackend.worker`."""
        return self._worker

    @property
    def available(self) -> bool:
        """Whether a batch may be asked for now."""
        return self._worker.alive

    async def close(self) -> None:
        """See `Backend.close`."""
        self._keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeping
        await self._worker.close()

    async def _again(self) -> None:
        message = "the worker in its container ended, and the next one has not loaded the model yet"
        if not self._patient or self._keeping.done():
            raise WorkerMissing(message, retry_after_seconds=_PAUSE_SECONDS)
        self._back.clear()
        try:
            async with asyncio.timeout(speaking.LOAD_SECONDS):
                await self._back.wait()
        except TimeoutError:
            raise WorkerMissing(message, retry_after_seconds=_PAUSE_SECONDS) from None

    def _note(self, *, died: bool) -> float:  # noqa: ARG002  the pauses are made elsewhere
        return 0.0 if self._patient else _PAUSE_SECONDS

    async def _keep(self) -> None:
        while True:
            await self._worker.ended()
            _log.warning("the worker in its container ended; not ready until another one has loaded the model")
            await self._worker.close()
            self._worker = await self._next()
            self._back.set()
            _log.info("another worker has loaded the model")

    async def _next(self) -> JoinedWorker:
        while True:
            try:
                worker = await JoinedWorker.join(self._folder, self._texts, seconds=speaking.LOAD_SECONDS)
            except StartRefused as error:
                _log.error("the worker in its container cannot be had again: %s: %s", error.reason, error.message)
            else:
                if self.is_same(worker):
                    return worker
                _log.error("the worker in its container came back with another signature and is not asked")
                await worker.close()
            await asyncio.sleep(_PAUSE_SECONDS)
