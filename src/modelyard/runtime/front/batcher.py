"""Greedy, work-conserving micro-batching.

A batch is what queued while the previous call of the model ran: no time window, so a lone request never waits, and
under load a call carries many. Models whose cost is per call (R, scikit-learn) gain most.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.runtime.backends.port import Array, Backend, Tensors, WorkerDied

_log = logging.getLogger(__name__)


def concatenated(parts: Sequence[Tensors]) -> dict[str, Array]:
    """Tensors below one another, name by name."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class QueueFull(RetryLater):
    """Too many requests wait for this model."""


class Gone(RetryLater):
    """Nobody waited for the answer any more when it was the call's turn."""


_GONE = Gone("the client went away")


class Call:
    """One request on its way through a model; its subclass knows where the answer goes.

    group: calls of equal groups may share one call of the model. gone: nobody waits for the answer any more.
    """

    __slots__ = ("delivered", "group", "inputs", "rows")

    def __init__(self, inputs: Tensors, rows: int, group: object = ()) -> None:
        self.inputs = inputs
        self.rows = rows
        self.group = group
        self.delivered = False

    @property
    def gone(self) -> bool:
        raise NotImplementedError

    def deliver(self, answer: Tensors | Exception) -> None:
        """Called exactly once for every call that was queued."""
        raise NotImplementedError


class Batcher:
    """The queue before one model.

    max_rows: of one call of the model; a larger request is cut where batchable. max_queue: waiting calls before
    QueueFull. batchable: rows of different calls may be put together. on_batch: told the rows of every call of the
    model.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_rows: int,
        max_queue: int,
        batchable: bool,
        on_batch: Callable[[int], None],
    ) -> None:
        self._backend = backend
        self._max_rows = max_rows
        self._max_queue = max_queue
        self._batchable = batchable
        self._on_batch = on_batch
        self._queue: deque[Call] = deque()
        self._arrived = asyncio.Event()

    def submit(self, call: Call) -> None:
        """Queue a call; raises QueueFull. The answer comes through `call.deliver`, never before this returns."""
        queue = self._queue
        if len(queue) >= self._max_queue:
            self._drop_gone()
            queue = self._queue
            if len(queue) >= self._max_queue:
                raise QueueFull(f"{len(queue)} requests are waiting for this model already; try again", 1.0)
        queue.append(call)
        self._arrived.set()

    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._queue)

    async def run(self) -> None:
        """Score until cancelled; whoever waits then gets RetryLater."""
        batch: Sequence[Call] = ()
        try:
            while True:
                while not self._queue:
                    self._arrived.clear()
                    await self._arrived.wait()
                batch = self._take()
                await self._score(batch)
                batch = ()
        finally:
            for call in (*batch, *self._queue):
                _deliver(call, RetryLater("the server is stopping; try again", 1.0))
            self._queue.clear()

    def _drop_gone(self) -> None:
        waiting: deque[Call] = deque()
        for call in self._queue:
            if call.gone:
                _deliver(call, _GONE)
            else:
                waiting.append(call)
        self._queue = waiting

    def _take(self) -> list[Call]:
        """The longest run of calls at the head of the queue that fit together."""
        queue = self._queue
        batch: list[Call] = []
        rows = 0
        while queue:
            call = queue[0]
            if call.gone:
                _deliver(queue.popleft(), _GONE)
                continue
            if batch and (not self._batchable or rows + call.rows > self._max_rows or call.group != batch[0].group):
                break
            batch.append(queue.popleft())
            rows += call.rows
        return batch

    async def _score(self, batch: Sequence[Call]) -> None:
        if len(batch) == 1:
            await self._score_alone(batch[0])
        elif batch:
            await self._score_together(batch)

    async def _score_alone(self, call: Call) -> None:
        try:
            if self._batchable and call.rows > self._max_rows:
                answer: Tensors | Exception = await self._score_in_parts(call)
            else:
                self._on_batch(call.rows)
                answer = await self._backend.infer(call.inputs)
        except Exception as error:
            answer = _known(error)
        _deliver(call, answer)

    async def _score_in_parts(self, call: Call) -> Tensors:
        parts: list[Tensors] = []
        for start in range(0, call.rows, self._max_rows):
            part = {name: array[start : start + self._max_rows] for name, array in call.inputs.items()}
            size = min(self._max_rows, call.rows - start)
            self._on_batch(size)
            outputs = await self._backend.infer(part)
            if not _has_rows(outputs, size):
                raise UserError(
                    f"the model does not answer row by row; send at most {self._max_rows} rows in one request"
                )
            parts.append(outputs)
        return concatenated(parts)

    async def _score_together(self, batch: Sequence[Call]) -> None:
        joined = concatenated([call.inputs for call in batch])
        rows = sum(call.rows for call in batch)
        self._on_batch(rows)
        try:
            outputs = await self._backend.infer(joined)
        except (UserError, WorkerDied):
            outputs = None  # one request's values, perhaps; which one, they find out alone
        except Exception as error:
            problem = _known(error)
            for call in batch:
                _deliver(call, problem)
            return
        if outputs is None or not _has_rows(outputs, rows):
            for call in batch:
                if call.gone:
                    _deliver(call, _GONE)
                else:
                    await self._score_alone(call)
            return
        start = 0
        for call in batch:
            end = start + call.rows
            _deliver(call, {name: array[start:end] for name, array in outputs.items()})
            start = end


def _has_rows(outputs: Tensors, rows: int) -> bool:
    return all(array.ndim > 0 and array.shape[0] == rows for array in outputs.values())


def _known(error: Exception) -> Exception:
    if not isinstance(error, ModelyardError):
        _log.exception("a backend failed in a way that it should not")
    return error


def _deliver(call: Call, answer: Tensors | Exception) -> None:
    """Delivering to one must never harm the others."""
    if call.delivered:
        return
    call.delivered = True
    try:
        call.deliver(answer)
    except Exception:
        _log.exception("an answer could not be delivered")
