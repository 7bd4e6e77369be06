"""A runner: claims its share of the partitions, runs a lane for each, and gives back what others shall have."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from modelyard.base.errors import RetryLater
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams import assignment
from modelyard.runtime.streams.books import Books, Partition
from modelyard.runtime.streams.feed import Feed
from modelyard.runtime.streams.lane import Lane
from modelyard.runtime.streams.machine import Problem
from modelyard.runtime.streams.nats.claims import Claims
from modelyard.runtime.streams.port import Away, Link
from modelyard.runtime.streams.trials import Trials
from modelyard.wire.work import StreamWork

log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.2
_RENEW_SECONDS = 3.0
_DOUBT_SECONDS = 9.0
"""A claim that could not be renewed for so long may be somebody else's by now."""
_LAG_SECONDS = 2.0
_END_SECONDS = 2.0


@dataclass(slots=True)
class Held:
    """A partition that this runner has claimed. renewed: monotonic seconds. begun: it is known to have an offset."""

    lane: Lane
    trials: Trials
    renewed: float
    lag: int | None = None


@dataclass(kw_only=True)
class Runner:
    """link: source and sink of a partition. start: differs between runners, as for `assignment.wanted`."""

    work: StreamWork
    claims: Claims
    link: Callable[[int], Link]
    feed: Callable[[], Feed]
    start: int
    books: Books = field(default_factory=Books)
    held: dict[int, Held] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    problem: Problem | None = None
    """Of the runner itself; lanes have their own."""
    _attention: asyncio.Event = field(default_factory=asyncio.Event)
    _shown: float = float("-inf")

    def __post_init__(self) -> None:
        self.begun |= set(self.work.begun)

    def partitions(self) -> list[Partition]:
        """What is held, for reports."""
        return [
            Partition(number=number, offset=each.lane.state.offset, lag=each.lag)
            for number, each in sorted(self.held.items())
        ]

    def problems(self) -> list[Problem]:
        """What keeps it from working, the worst first."""
        own = [self.problem] if self.problem else []
        lanes = [(number, each.lane.state.problem) for number, each in sorted(self.held.items())]
        return [*own, *(self._named(number, found) for number, found in lanes if found is not None)]

    def _named(self, number: int, problem: Problem) -> Problem:
        if self.work.partitions == 1:
            return problem
        return Problem(problem.reason, f"partition {number}: {problem.message}")

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then every lane finishes its commit and gives its partition back."""
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask_lags())
            stopping = group.create_task(self._wake_at(stop))
            while not stop.is_set():
                await self._look(group)
                self._attention.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._attention.wait()
            for each in self.held.values():
                each.lane.leave()
            while self.held:
                self._attention.clear()
                await self._attention.wait()
            asking.cancel()
            stopping.cancel()
            await self._hide()

    async def _wake_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._attention.set()

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """What should be held, and by whom. What the broker cannot tell now is asked again."""
        try:
            await self._renew()
            runners, claimed = await self.claims.live(), await self.claims.claimed()
            for number in assignment.surplus(self.held.keys(), self.work.partitions, runners):
                self.held[number].lane.leave()
            for number in assignment.wanted(self.held.keys(), claimed, self.work.partitions, runners, self.start):
                if await self.claims.claim(number):
                    self._hold(group, number)
            self.problem = None
        except Away as error:
            self.problem = Problem(error.reason, error.message)
        except Refused as error:
            self.problem = Problem(error.reason, error.message)
        self._doubt()

    async def _renew(self) -> None:
        now = time.monotonic()
        if now - self._shown >= _RENEW_SECONDS:
            await self.claims.show()
            self._shown = now
        for number, each in list(self.held.items()):
            if now - each.renewed >= _RENEW_SECONDS:
                if await self.claims.renew(number):
                    each.renewed = now
                else:
                    log.info("partition %d: somebody else has it", number)
                    each.lane.lose()

    def _doubt(self) -> None:
        for each in self.held.values():
            if time.monotonic() - each.renewed >= _DOUBT_SECONDS:
                each.lane.lose()

    def _hold(self, group: asyncio.TaskGroup, number: int) -> None:
        trials = Trials(partial(self.claims.attempts, number), partial(self.claims.progressed, number))
        lane = Lane(number, self.link(number), self.feed(), self.books, begun=number in self.begun, trials=trials)
        self.held[number] = Held(lane=lane, trials=trials, renewed=time.monotonic())
        group.create_task(self._run_lane(number, self.held[number]))

    async def _run_lane(self, number: int, held: Held) -> None:
        try:
            if await held.lane.run():
                await held.trials.progressed()
                await self._release(number)
        finally:
            if held.lane.state.begun:
                self.begun.add(number)
            del self.held[number]
            self._attention.set()

    async def _release(self, number: int) -> None:
        """A claim that cannot be given back ends by itself."""
        with contextlib.suppress(RetryLater, Refused):
            await self.claims.release(number)

    async def _hide(self) -> None:
        with contextlib.suppress(RetryLater, Refused, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self.claims.hide()

    async def _ask_lags(self) -> None:
        while True:
            for each in list(self.held.values()):
                each.lag = await _lag(each.lane)
            await asyncio.sleep(_LAG_SECONDS)


async def _lag(lane: Lane) -> int | None:
    """Messages that wait at the source, with those in hand that are not committed; None if nobody can tell."""
    reading = lane.reading
    if reading is None:
        return None
    try:
        waiting = await reading.lag()
    except (Away, Refused):
        return None
    return None if waiting is None else waiting + lane.in_hand
