"""The model of a runner, loaded once, and once more in a process of its own where rows may end it."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from modelyard.runtime.backends.load import load
from modelyard.runtime.backends.port import Backend
from modelyard.storage.cache import Cache
from modelyard.wire.work import ModelWork, Place, TensorSpec


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

    async def backend(self, *, careful: bool) -> Backend:
        """Loaded at the first call. careful: a model that ends its process ends no runner. Raises LoadFailed."""
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
