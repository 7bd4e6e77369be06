"""Each key once, one worker at a time, again with growing pauses."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelyard.control.kube.queue import WorkQueue


def plain(seconds: float) -> float:
    return seconds


async def given_out(queue: WorkQueue[str]) -> list[str]:
    """Everything that can be had now."""
    keys = []
    while True:
        try:
            async with asyncio.timeout(0.001):
                keys.append(await queue.get())
        except TimeoutError:
            return keys


async def test_a_key_that_is_added_twice_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert await given_out(queue) == ["a", "b"]


async def test_a_key_that_is_worked_on_comes_again_only_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("b")
    assert await given_out(queue) == ["b"]
    queue.done("a")
    assert await given_out(queue) == ["a"]
    queue.done("a")
    assert await given_out(queue) == []


async def test_all_who_wait_are_served() -> None:
    queue: WorkQueue[str] = WorkQueue()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = [group.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        for key in "abc":
            queue.add(key)
    assert sorted(task.result() for task in waiting) == ["a", "b", "c"]


async def test_one_who_stops_waiting_takes_nothing_along() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = [asyncio.ensure_future(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add("a")
    waiting[0].cancel()
    async with asyncio.timeout(5):
        assert await waiting[1] == "a"
    assert waiting[0].cancelled()


async def test_pauses_double_up_to_the_longest_until_it_worked() -> None:
    pauses: list[float] = []

    def noted(seconds: float) -> float:
        pauses.append(seconds)
        return 0.0

    queue: WorkQueue[str] = WorkQueue(first_pause=0.2, longest_pause=1.0, jitter=noted)
    for _ in range(5):
        queue.retry("a")
    queue.retry("b")
    queue.forget("a")
    queue.retry("a")
    for _ in range(5000):
        queue.retry("c")
    assert pauses[:7] == [0.2, 0.4, 0.8, 1.0, 1.0, 0.2, 0.2]
    assert max(pauses) == 1.0
    async with asyncio.timeout(5):
        assert {await queue.get() for _ in range(3)} == {"a", "b", "c"}


async def test_of_several_times_the_earliest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=plain)
    loop = asyncio.get_running_loop()
    began = loop.time()
    queue.add_after("a", 60)
    queue.add_after("a", 0.02)
    queue.add_after("a", 30)
    async with asyncio.timeout(5):
        assert await queue.get() == "a"
    assert 0.019 <= loop.time() - began < 5
    queue.done("a")
    assert queue._timers == {}


async def test_adding_now_does_not_forget_the_later_time() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=plain)
    queue.add_after("a", 0.02)
    queue.add("a")
    async with asyncio.timeout(5):
        for _ in range(2):
            assert await queue.get() == "a"
            queue.done("a")


class Machine(RuleBasedStateMachine):
    """Against a model: what waits, who works; in any order of adding, taking and finishing."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[int] = WorkQueue()
        self.wanted: set[int] = set()
        self.busy: set[int] = set()
        self.runs: Counter[int] = Counter()

    @rule(key=st.integers(0, 4))
    def add(self, key: int) -> None:
        self.queue.add(key)
        self.wanted.add(key)

    @precondition(lambda self: self.wanted - self.busy)
    @rule()
    def take(self) -> None:
        taking = self.queue.get()
        with pytest.raises(StopIteration) as taken:  # it must not wait
            taking.send(None)
        key = taken.value.value
        assert key in self.wanted - self.busy, "never one that is worked on, never one that nobody asked for"
        self.wanted.discard(key)
        self.busy.add(key)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.busy)))
        self.busy.discard(key)
        self.queue.done(key)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.wanted)
        assert bool(self.queue._ready) == bool(self.wanted - self.busy)

    def teardown(self) -> None:
        for key in sorted(self.busy):
            self.queue.done(key)
        self.busy.clear()
        while self.wanted:
            self.take()


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 4))
async def test_workers_never_meet_and_the_last_change_is_always_seen(changes: list[int], workers: int) -> None:
    queue: WorkQueue[int] = WorkQueue()
    state: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    busy: set[int] = set()

    async def work() -> None:
        while True:
            key = await queue.get()
            assert key not in busy
            busy.add(key)
            now = state[key]
            await asyncio.sleep(0)
            seen[key] = now
            busy.discard(key)
            queue.done(key)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(workers)]
        for key in changes:
            state[key] += 1
            queue.add(key)
            if key == 0:
                await asyncio.sleep(0)
        while len(queue) or busy:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
    assert seen == state


async def test_what_was_put_off_is_not_done_once_the_key_was_worked_on_in_order() -> None:
    queue: WorkQueue[str] = WorkQueue(jitter=plain)
    queue.add_after("a", 0.02)
    queue.retry("b")
    queue.forget("a")
    queue.add_after("c", 0.03)
    async with asyncio.timeout(5):
        assert await queue.get() == "c", "it is due later than a was"
