import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends.port import Tensors, WorkerDied
from modelyard.runtime.front.batcher import Batcher, Call, Gone, QueueFull


class Asked(Call):
    """A call that remembers what it was answered."""

    __slots__ = ("answers", "left")

    def __init__(self, *values: float, width: int = 1) -> None:
        column = np.array(values, np.float64).reshape(-1, 1)
        super().__init__({"x": np.repeat(column, width, axis=1)}, len(values), (width,))
        self.answers: list[Tensors | Exception] = []
        self.left = False

    @property
    def gone(self) -> bool:
        return self.left

    def deliver(self, answer: Tensors | Exception) -> None:
        self.answers.append(answer)

    @property
    def answer(self) -> Any:
        """What was delivered: the values, or the exception."""
        (only,) = self.answers
        return only if isinstance(only, Exception) else only["y"][:, 0].tolist()


class Doubler:
    """A backend that doubles, held at a gate, and refuses negative values, which could be anybody's."""

    inputs = ()
    outputs = ()

    def __init__(self) -> None:
        self.calls: list[Tensors] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.lethal: float | None = None
        self.flat = False

    async def infer(self, inputs: Tensors) -> Tensors:
        self.calls.append(inputs)
        await self.gate.wait()
        if self.lethal is not None and self.lethal in inputs["x"]:
            raise WorkerDied("the worker ended with signal 9")
        if (inputs["x"] < 0).any():
            raise UserError("the model refused the values: negative")
        return {"y": np.array([7.0]) if self.flat else inputs["x"] * 2}

    async def close(self) -> None: ...

    @property
    def rows(self) -> list[int]:
        return [len(call["x"]) for call in self.calls]


@asynccontextmanager
async def running(backend: Doubler, **changes: Any) -> Any:
    settings = {"max_rows": 8, "max_queue": 100, "batchable": True, **changes}
    batcher = Batcher(backend, on_batch=lambda _: None, **settings)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(fact: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not fact():  # noqa: ASYNC110 - facts of several objects, no event of one
            await asyncio.sleep(0)


async def answered(*calls: Asked) -> None:
    await until(lambda: all(call.answers for call in calls))


async def behind(backend: Doubler, batcher: Batcher, calls: list[Asked]) -> None:
    """Queue calls while the model is busy with another one."""
    backend.gate.clear()
    first = Asked(0.5)
    batcher.submit(first)
    await until(lambda: backend.calls)
    for call in calls:
        batcher.submit(call)
    backend.calls.clear()
    backend.gate.set()
    await answered(first, *calls)


async def test_a_lone_call_is_scored_at_once() -> None:
    backend = Doubler()
    async with running(backend) as batcher:
        call = Asked(1, 2)
        batcher.submit(call)
        await answered(call)
    assert call.answer == [2, 4]


async def test_what_queued_during_a_call_is_the_next_batch() -> None:
    backend = Doubler()
    calls = [Asked(float(value)) for value in range(5)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
    assert backend.rows == [5]
    assert [call.answer for call in calls] == [[2.0 * value] for value in range(5)]


async def test_a_batch_has_no_more_rows_than_allowed() -> None:
    backend = Doubler()
    calls = [Asked(*[1.0] * 3) for _ in range(5)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
    assert backend.rows == [6, 6, 3]


async def test_a_request_larger_than_a_batch_is_cut_and_put_together_again() -> None:
    backend = Doubler()
    call = Asked(*map(float, range(20)))
    async with running(backend) as batcher:
        batcher.submit(call)
        await answered(call)
    assert backend.rows == [8, 8, 4]
    assert call.answer == [2.0 * value for value in range(20)]


async def test_requests_of_different_shapes_never_share_a_call() -> None:
    backend = Doubler()
    calls = [Asked(1, width=1), Asked(2, width=1), Asked(3, width=2), Asked(4, width=1)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
    assert [call["x"].shape for call in backend.calls] == [(2, 1), (1, 2), (1, 1)]


async def test_a_model_that_cannot_be_batched_gets_one_request_at_a_time_however_large() -> None:
    backend = Doubler()
    calls = [Asked(1), Asked(*[2.0] * 20), Asked(3)]
    async with running(backend, batchable=False) as batcher:
        await behind(backend, batcher, calls)
    assert backend.rows == [1, 20, 1]


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    backend = Doubler()
    backend.gate.clear()
    async with running(backend, max_queue=2) as batcher:
        batcher.submit(Asked(0))
        await until(lambda: backend.calls)
        batcher.submit(Asked(1))
        batcher.submit(Asked(2))
        with pytest.raises(QueueFull) as caught:
            batcher.submit(Asked(3))
    assert caught.value.retry_after_seconds == 1


async def test_calls_that_nobody_waits_for_make_room_and_are_never_scored() -> None:
    backend = Doubler()
    backend.gate.clear()
    async with running(backend, max_queue=2) as batcher:
        first, left, last = Asked(0), Asked(1), Asked(3)
        batcher.submit(first)
        await until(lambda: backend.calls)
        batcher.submit(left)
        batcher.submit(Asked(2))
        left.left = True
        batcher.submit(last)
        backend.gate.set()
        await answered(last)
    assert isinstance(left.answer, Gone)
    assert [call["x"].tolist() for call in backend.calls] == [[[0]], [[2], [3]]]


async def test_one_requests_bad_values_do_not_fail_its_neighbors() -> None:
    backend = Doubler()
    calls = [Asked(1), Asked(-1), Asked(2)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
    assert calls[0].answer == [2]
    assert isinstance(calls[1].answer, UserError)
    assert calls[2].answer == [4]
    assert backend.rows == [3, 1, 1, 1]


async def test_a_batch_that_killed_a_worker_is_tried_again_one_by_one() -> None:
    backend = Doubler()
    backend.lethal = 13
    calls = [Asked(1), Asked(13), Asked(2)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
    assert calls[0].answer == [2]
    assert isinstance(calls[1].answer, WorkerDied)
    assert calls[2].answer == [4]


async def test_a_lone_request_that_killed_a_worker_is_not_tried_again() -> None:
    backend = Doubler()
    backend.lethal = 13
    async with running(backend) as batcher:
        call = Asked(13)
        batcher.submit(call)
        await answered(call)
    assert isinstance(call.answer, WorkerDied)
    assert backend.rows == [1]


async def test_a_model_that_does_not_answer_row_by_row_is_asked_one_by_one() -> None:
    backend = Doubler()
    backend.flat = True
    calls = [Asked(1), Asked(2)]
    large = Asked(*[1.0] * 9)
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
        batcher.submit(large)
        await answered(large)
    assert backend.rows[:3] == [2, 1, 1]
    assert "send at most 8 rows" in large.answer.message


async def test_a_defect_of_a_backend_reaches_only_its_batch() -> None:
    class Broken(Doubler):
        async def infer(self, inputs: Tensors) -> Tensors:
            if 13 in inputs["x"]:
                raise ZeroDivisionError
            return await super().infer(inputs)

    backend = Broken()
    calls = [Asked(13), Asked(1)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
        after = Asked(2)
        batcher.submit(after)
        await answered(after)
    assert [type(call.answer) for call in calls] == [ZeroDivisionError, ZeroDivisionError]
    assert after.answer == [4]


async def test_an_answer_that_cannot_be_delivered_harms_nobody_else() -> None:
    class Unreachable(Asked):
        __slots__ = ()

        def deliver(self, answer: Tensors | Exception) -> None:
            super().deliver(answer)
            raise BrokenPipeError

    backend = Doubler()
    calls: list[Asked] = [Unreachable(1), Asked(2)]
    async with running(backend) as batcher:
        await behind(backend, batcher, calls)
    assert [call.answer for call in calls] == [[2], [4]]


async def test_who_still_waits_when_the_server_ends_is_told_to_try_again() -> None:
    backend = Doubler()
    backend.gate.clear()
    calls = [Asked(1), Asked(2)]
    async with running(backend) as batcher:
        batcher.submit(calls[0])
        await until(lambda: backend.calls)
        batcher.submit(calls[1])
    assert all(isinstance(call.answer, RetryLater) for call in calls)


Step = tuple[str, Any]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.tuples(st.lists(st.sampled_from([-1.0, 1.0, 2.0, 13.0]), min_size=1, max_size=12), st.integers(1, 2)),
        ),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.tuples(st.just("open"), st.none()),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(STEPS, st.integers(1, 10), st.booleans())
def test_every_request_is_answered_exactly_once_with_its_own_rows(
    steps: list[Step], max_rows: int, batchable: bool
) -> None:
    async def play() -> None:
        backend = Doubler()
        backend.lethal = 13
        calls: list[Asked] = []
        queued = 0
        async with running(backend, max_rows=max_rows, max_queue=6, batchable=batchable) as batcher:
            for step, detail in steps:
                if step == "submit":
                    call = Asked(*detail[0], width=detail[1])
                    try:
                        batcher.submit(call)
                    except QueueFull:
                        continue
                    calls.append(call)
                    queued = max(queued, batcher.waiting())
                elif step == "leave" and calls:
                    calls[detail % len(calls)].left = True
                elif step in ("open", "close"):
                    (backend.gate.set if step == "open" else backend.gate.clear)()
                    await asyncio.sleep(0)
            backend.gate.set()
            await answered(*calls)
        assert queued <= 6
        for call in calls:
            values = call.inputs["x"][:, 0].tolist()
            if isinstance(call.answer, Gone):
                assert call.left
            elif isinstance(call.answer, UserError):
                assert -1 in values
            elif isinstance(call.answer, WorkerDied):
                assert 13 in values
            else:
                assert call.answer == [2 * value for value in values]
        if batchable:
            assert all(rows <= max_rows for rows in backend.rows)

    asyncio.run(play())
