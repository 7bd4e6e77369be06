"""The model of a runner, loaded once, and once more in a process of its own where rows may end it."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater
from modelyard.runtime.backends.load import is_joined, load
from modelyard.runtime.backends.port import Backend, LoadFailed
from modelyard.runtime.worker.tensors import zeros
from modelyard.storage.cache import Cache
from modelyard.wire.place import Place
from modelyard.wire.work import ModelWork, TensorSpec


class ScoredModel:
    """`turn` must be held while one of its backends is asked: a backend takes one call at a time."""

    def __init__(self, model: ModelWork, threads: int, place: Place, stack: AsyncExitStack) -> None:
        self.turn = asyncio.Lock()
        self._model = model
        self._threads = threads
        self._place = place
        self._stack = stack
        self._backends: dict[bool, Backend] = {}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._model.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._model.outputs

    async def prove(self) -> None:
        """Load it and let it score a row of zeros, which the first record then need not pay for. Raises LoadFailed."""
        found = await self.backend(careful=False)
        async with self.turn:
            try:
                await found.infer(zeros(self.inputs))
            except ModelyardError as error:
                raise LoadFailed(
                    Reason.WARMUP_FAILED,
                    f"the first inference, of a row of zeros, failed: {error.message}",
                    retry=isinstance(error, RetryLater),
                ) from error

    async def backend(self, *, careful: bool) -> Backend:
        """Loaded at the first call. careful: a model that ends its process ends no runner. Raises LoadFailed."""
        careful = careful and not is_joined(self._model)  # it is apart already
        async with self.turn:
            if careful not in self._backends:
                model, place = self._model, self._place
                path = await asyncio.to_thread(Cache(Path(place.cache)).path, model.digest)
                scratch = Path(place.scratch) / ("careful" if careful else "model")
                scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
                found = await load(model, path, threads=self._threads, scratch=scratch, job=True, apart=careful)
                self._stack.push_async_callback(found.close)
                self._backends[careful] = found
            return self._backends[careful]
