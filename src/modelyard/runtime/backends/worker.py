"""A model that runs in a worker process of its own."""

import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from modelyard.runtime.backends.port import LoadFailed, Tensors, WorkerDied, WorkerMissing
from modelyard.runtime.worker import process as processes
from modelyard.runtime.worker import python_worker
from modelyard.runtime.worker.process import ProcessEnded, StartRefused, WorkerProcess
from modelyard.runtime.worker.tensors import from_tensor, to_tensor
from modelyard.wire import frames
from modelyard.wire.work import ModelWork, TensorSpec

LOAD_SECONDS = 600.0
"""How long a worker may take to load a model; whoever started this process usually waits less."""
INFER_SECONDS = 300.0
"""How long one batch may take before its worker counts as stuck."""
# -P: imports nothing that lies beside the file. -u: what the model prints is logged even if it is killed.
_OWN_WORKER = (sys.executable, "-P", "-u", os.path.abspath(python_worker.__file__))
_AT_ONCE = 2
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0


class WorkerBackend:
    """A worker, and the next one when it died."""

    def __init__(
        self, start: Callable[[], Awaitable[WorkerProcess]], worker: WorkerProcess, *, hurry: bool = False
    ) -> None:
        self.inputs: tuple[TensorSpec, ...] = worker.ready.inputs
        self.outputs: tuple[TensorSpec, ...] = worker.ready.outputs
        self.format_version = worker.ready.format_version
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
        variables = processes.environment(os.environ, threads, str(scratch))
        texts = _hello(work, path, threads, scratch)

        async def start() -> WorkerProcess:
            try:
                return await WorkerProcess.start(argv, variables, texts, seconds=LOAD_SECONDS)
            except StartRefused as error:
                raise LoadFailed(error.reason, error.message, retry=error.retry) from error

        return cls(start, await start(), hurry=hurry)

    @property
    def pid(self) -> int:
        """The process that runs the model now."""
        return self._worker.pid

    async def infer(self, inputs: Tensors) -> Tensors:
        """See `Backend.infer`. A dead worker is started again here, with growing pauses until a batch succeeds."""
        if not self._worker.alive:
            await self._restart()
        tensors = tuple(to_tensor(spec.name, spec.datatype, inputs[spec.name]) for spec in self.inputs)
        try:
            answer = await self._worker.call(tensors, seconds=INFER_SECONDS)
            await self._check(answer, len(inputs[self.inputs[0].name]))
        except ProcessEnded as error:
            self._died()
            raise WorkerDied(error.message, retry_after_seconds=self._pause()) from error
        self._deaths = 0
        return {tensor.name: from_tensor(tensor) for tensor in answer}

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed = True
        await self._worker.close()

    async def _restart(self) -> None:
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
        if (worker.ready.inputs, worker.ready.outputs) != (self.inputs, self.outputs):
            await worker.close(0)
            self._died()
            raise WorkerMissing("the model's process came back with another signature", self._pause())
        self._worker = worker

    def _died(self) -> None:
        """Two restarts are due at once: for a batch, and for the one request in it that killed the worker."""
        self._deaths += 1
        self._not_before = time.monotonic() + self._pause()

    def _pause(self) -> float:
        if self._deaths <= _AT_ONCE or self._hurry:
            return 0.0
        return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(self._deaths - _AT_ONCE - 1, 10), _LONGEST_PAUSE_SECONDS)

    async def _check(self, answer: tuple[frames.Tensor, ...], rows: int) -> None:
        """The answer is as the signature says; a worker that answers something else is not asked again."""
        if len(answer) != len(self.outputs):
            raise await self._worker.end(f"the model gave {len(answer)} outputs, not {len(self.outputs)}")
        for tensor, spec in zip(answer, self.outputs, strict=True):
            fits = len(tensor.shape) == len(spec.shape) and all(
                want in (-1, have) for have, want in zip(tensor.shape, spec.shape, strict=True)
            )
            if (tensor.name, tensor.datatype) != (spec.name, spec.datatype) or not fits:
                raise await self._worker.end(
                    f"the model gave {tensor.datatype}{list(tensor.shape)} {tensor.name!r}, "
                    f"not {spec.datatype}{list(spec.shape)} {spec.name!r}"
                )
            if spec.shape[:1] == (-1,) and tensor.shape[0] != rows:
                raise await self._worker.end(f"the model gave {tensor.shape[0]} rows of {tensor.name!r} for {rows}")


def _hello(work: ModelWork, path: Path, threads: int, scratch: Path) -> frames.Texts:
    return (
        ("protocol", frames.PROTOCOL),
        ("path", str(path.absolute())),
        ("format", work.format),
        ("trust", work.trust),
        ("threads", str(threads)),
        ("scratch", str(scratch.absolute())),
        *(("input", frames.spec_text(spec)) for spec in work.inputs),
        *(("output", frames.spec_text(spec)) for spec in work.outputs),
    )
