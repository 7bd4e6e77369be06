"""What is compared, what is left out, and that nothing of it is felt by requests."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway_testing import becomes_true
from modelyard.base.errors import UserError
from modelyard.runtime.front import shadow
from modelyard.runtime.front.asking import Answer, Unanswered
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.shadow import Off, Shadow
from modelyard.wire.report import ShadowReport

MODEL, NAME = "iris.default", "iris"
BODY = b'{"inputs": []}'


class Conversation:
    """What an exchange belongs to here."""

    ending = False

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def answered(self) -> None:
        """Nobody waits."""


def exchange(percent: int = 100, body: bytes = BODY) -> Exchange:
    made = Exchange(Conversation(), b"POST", b"/v2/models/iris/infer", body, keep_alive=True)
    made.compared_percent = percent
    made.sender = "10.0.0.9"
    return made


def said(*numbers: float, **more: Any) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [len(numbers)], "data": numbers}
    return json.dumps({"model_name": "iris", "model_version": "1", "outputs": [output], **more}).encode()


class World:
    """A comparison whose serving revision answers as a test says, in turn; then the last again."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.answers: list[Answer | Exception] = [Answer(200, said(1.0))]
        self.told: list[ShadowReport] = []
        self.waits: Callable[[], Awaitable[object]] | None = None
        self.shadow = Shadow(self._ask, self._tell)

    async def _ask(self, name: str, body: bytes, sender: str) -> Answer:
        assert sender == "10.0.0.9"
        self.asked.append((name, body))
        if self.waits:
            await self.waits()
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _tell(self, report: ShadowReport) -> None:
        self.told.append(report)

    def watch(self, copy: Exchange) -> Exchange:
        self.shadow.watch(copy, MODEL, NAME)
        return copy

    def copy(self, status: int = 200, answer: bytes = said(1.0), **more: Any) -> None:
        """A request that is answered at once."""
        self.watch(exchange(**more)).answer(status, answer)

    @property
    def total(self) -> ShadowReport:
        return self.shadow.totals.get(MODEL, ShadowReport())

    async def becomes(self, **numbers: float) -> None:
        wanted = ShadowReport(**numbers)  # type: ignore[arg-type]
        await becomes_true(lambda: self.total == wanted)


@asynccontextmanager
async def comparing() -> AsyncIterator[World]:
    world = World()
    running = asyncio.create_task(world.shadow.run())
    try:
        yield world
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()


async def test_equal_answers_are_compared_and_do_not_differ() -> None:
    async with comparing() as world:
        world.copy(answer=said(1.0, id="another", model_version="2"))
        await world.becomes(compared=1)
        assert world.asked == [(NAME, BODY)] * 2


async def test_a_difference_is_found_exactly_beside_the_noise() -> None:
    async with comparing() as world:
        world.answers = [Answer(200, said(1.0)), Answer(200, said(1.0))]
        world.copy(answer=said(1.25))
        found = {"largest_difference": 0.25, "largest_relative_difference": 0.2}
        await world.becomes(compared=1, different=1, **found)
        world.answers = [*world.answers, Answer(200, said(1.0)), Answer(200, said(2.0))]
        world.copy(answer=said(1.5))
        await world.becomes(
            compared=2,
            different=1,
            noisy=1,
            largest_difference=0.5,
            largest_relative_difference=1 / 3,
            largest_noise=1.0,
            largest_relative_noise=0.5,
        )


async def test_the_share_is_exact() -> None:
    async with comparing() as world:
        for _ in range(50):
            world.copy(percent=10)
            await asyncio.sleep(0.002)
        await world.becomes(compared=5)
        world.shadow.watch(exchange(percent=0), MODEL, NAME)
        assert len(world.asked) == 10


@pytest.mark.parametrize(
    ("ours", "serving", "found"),
    [
        (500, 200, {"shadow_failed": 1}),
        (200, 500, {"serving_failed": 1}),
        (200, 504, {"serving_failed": 1}),
        (400, 400, {"both_failed": 1}),
        (200, 503, {"skipped": 1}),
        (200, 429, {"skipped": 1}),
        (200, 403, {"skipped": 1}),
    ],
)
async def test_statuses_are_told_apart(ours: int, serving: int, found: dict[str, int]) -> None:
    async with comparing() as world:
        world.answers = [Answer(serving, said(1.0) if serving == 200 else b'{"error": "no"}')]
        world.copy(status=ours)
        await world.becomes(**found)
        assert len(world.asked) == 1


@pytest.mark.parametrize(
    "answers",
    [
        [Unanswered("nobody listens")],
        [Answer(200, said(1.0)), Unanswered("nobody listens any more")],
        [Answer(200, said(1.0)), Answer(503, b"")],
        [Answer(200, b"not json")],
        [RuntimeError("a defect")],
    ],
)
async def test_who_cannot_be_asked_is_left_out_and_the_next_one_is_compared(answers: list[Any]) -> None:
    async with comparing() as world:
        world.answers = [*answers, Answer(200, said(1.0))]
        world.copy()
        await world.becomes(skipped=1)
        world.copy()
        await world.becomes(skipped=1, compared=1)


async def test_one_that_is_busy_is_not_compared_nor_one_that_is_large() -> None:
    async with comparing() as world:
        world.copy(status=429)
        world.copy(status=503)
        world.copy(body=b" " * (shadow.LARGEST_REQUEST_BYTES + 1))
        world.copy(answer=b" " * (shadow.LARGEST_ANSWER_BYTES + 1))
        await world.becomes(skipped=4)
        assert world.asked == []


async def test_large_answers_are_compared_apart() -> None:
    async with comparing() as world:
        numbers = [float(number) for number in range(10_000)]
        world.answers = [Answer(200, said(*numbers))]
        world.copy(answer=said(*numbers[:-1], 0.0))
        await world.becomes(compared=1, different=1, largest_difference=9999.0, largest_relative_difference=1.0)


async def test_only_a_few_are_compared_at_a_time_and_the_others_are_left_out() -> None:
    async with comparing() as world:
        released = asyncio.Event()
        world.waits = released.wait
        for _ in range(100):
            world.copy()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(world.asked) == shadow.AT_A_TIME
        kept = 100 - world.total.skipped
        assert shadow.AT_A_TIME <= kept <= 2 * shadow.AT_A_TIME
        released.set()
        await world.becomes(compared=kept, skipped=100 - kept)


async def test_few_bodies_are_kept_while_requests_are_not_answered_and_none_of_those_that_went_away() -> None:
    async with comparing() as world:
        waiting = [world.watch(exchange()) for _ in range(20)]
        assert 0 < 20 - world.total.skipped <= 8
        for each in waiting:
            each.gone = True
        world.copy()
        await world.becomes(compared=1, skipped=world.total.skipped)


async def test_sums_are_told_at_once_and_then_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_TELL_SECONDS", 3600)
    async with comparing() as world:
        world.copy()
        await becomes_true(lambda: bool(world.told))
        world.copy()
        await world.becomes(compared=2)
        assert world.told == [ShadowReport(compared=1)]


async def test_the_latest_sums_are_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "_TELL_SECONDS", 0.05)
    async with comparing() as world:
        for number in range(1, 6):
            world.copy()
            await world.becomes(compared=number)
        await becomes_true(lambda: world.told[-1:] == [ShadowReport(compared=5)])


@pytest.mark.parametrize("problem", [OSError("no space is left"), UserError("the report is too large")])
async def test_a_report_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(shadow, "_TELL_SECONDS", 0)

    def broken(_report: ShadowReport) -> None:
        raise problem

    async with comparing() as world:
        monkeypatch.setattr(world.shadow, "_told", broken)
        world.copy()
        await world.becomes(compared=1)
        world.copy()
        await world.becomes(compared=2)


def test_without_a_way_to_ask_nothing_is_compared() -> None:
    off = Off()
    off.watch(None, MODEL, NAME)  # type: ignore[arg-type]
    assert off.totals == {}
