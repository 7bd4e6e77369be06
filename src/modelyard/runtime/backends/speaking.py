"""A model behind the worker protocol, wherever its worker runs."""

from abc import ABC, abstractmethod
from pathlib import Path

from modelyard.runtime.backends.port import Tensors, WorkerDied
from modelyard.runtime.worker.conversation import ProcessEnded, Worker
from modelyard.runtime.worker.tensors import from_tensor, to_tensor
from modelyard.wire import frames
from modelyard.wire.work import ModelWork, TensorSpec

LOAD_SECONDS = 600.0
"""How long a worker may take to load a model; whoever started this process usually waits less."""
INFER_SECONDS = 300.0
"""How long one batch may take before its worker counts as stuck."""


class SpeakingBackend(ABC):
    """A worker, and the next one when it died."""

    def __init__(self, worker: Worker) -> None:
        self.inputs: tuple[TensorSpec, ...] = worker.ready.inputs
        self.outputs: tuple[TensorSpec, ...] = worker.ready.outputs
        self.format_version = worker.ready.format_version

    @property
    @abstractmethod
    def worker(self) -> Worker:
        """The one that has the model now, alive or not."""

    @abstractmethod
    async def close(self) -> None:
        """See `Backend.close`."""

    @abstractmethod
    async def _again(self) -> None:
        """The worker is dead: have another one, or raise WorkerDied."""

    @abstractmethod
    def _note(self, *, died: bool) -> float:
        """Whether a batch killed the worker; returns the seconds after which the next one may be tried."""

    async def infer(self, inputs: Tensors) -> Tensors:
        """See `Backend.infer`."""
        if not self.worker.alive:
            await self._again()
        tensors = tuple(to_tensor(spec.name, spec.datatype, inputs[spec.name]) for spec in self.inputs)
        try:
            answer = await self.worker.call(tensors, seconds=INFER_SECONDS)
            await self._check(answer, len(inputs[self.inputs[0].name]))
        except ProcessEnded as error:
            raise WorkerDied(error.message, retry_after_seconds=self._note(died=True)) from error
        self._note(died=False)
        return {tensor.name: from_tensor(tensor) for tensor in answer}

    def is_same(self, worker: Worker) -> bool:
        """Whether it has the same signature."""
        return (worker.ready.inputs, worker.ready.outputs) == (self.inputs, self.outputs)

    async def _check(self, answer: tuple[frames.Tensor, ...], rows: int) -> None:
        """The answer is as the signature says; a worker that answers something else is not asked again."""
        if len(answer) != len(self.outputs):
            raise await self.worker.end(f"the model gave {len(answer)} outputs, not {len(self.outputs)}")
        for tensor, spec in zip(answer, self.outputs, strict=True):
            fits = len(tensor.shape) == len(spec.shape) and all(
                want in (-1, have) for have, want in zip(tensor.shape, spec.shape, strict=True)
            )
            if (tensor.name, tensor.datatype) != (spec.name, spec.datatype) or not fits:
                raise await self.worker.end(
                    f"the model gave {tensor.datatype}{list(tensor.shape)} {tensor.name!r}, "
                    f"not {spec.datatype}{list(spec.shape)} {spec.name!r}"
                )
            if spec.shape[:1] == (-1,) and tensor.shape[0] != rows:
                raise await self.worker.end(f"the model gave {tensor.shape[0]} rows of {tensor.name!r} for {rows}")


def hello(work: ModelWork, path: Path, threads: int, scratch: Path) -> frames.Texts:
    """What a worker is told first."""
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
