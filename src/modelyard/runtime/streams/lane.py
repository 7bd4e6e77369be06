"""One partition while this runner holds it: the shell of `machine`, with a feed that works ahead of the commits."""

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.books import Books
from modelyard.runtime.streams.feed import Feed
from modelyard.runtime.streams.machine import (
    Begin,
    Broke,
    Commit,
    Drop,
    Due,
    Ended,
    Event,
    Forbidden,
    Found,
    GiveBack,
    Instruction,
    Leave,
    Lost,
    Phase,
    Read,
    Recover,
    Scored,
    State,
    Taken,
    Wait,
    step,
)
from modelyard.runtime.streams.port import Away, Committed, Link, Reading, Torn
from modelyard.runtime.streams.records import Group, Offset
from modelyard.runtime.streams.trials import Trials

log = logging.getLogger(__name__)
_AHEAD = 1
"""Groups that are scored and wait while another is committed."""


class Lane:
    """`run` it once. begun: somebody knows that the partition has an offset."""

    def __init__(self, number: int, link: Link, feed: Feed, books: Books, *, begun: bool, trials: Trials) -> None:
        self.number = number
        self.state = State(begun=begun)
        self.reading: Reading | None = None
        self._link = link
        self._feed = feed
        self._books = books
        self._trials = trials
        self._interrupt: Event | None = None
        self._attention = asyncio.Event()
        self._groups: asyncio.Queue[Event] = asyncio.Queue(_AHEAD)
        self._open = AsyncExitStack()

    @property
    def in_hand(self) -> int:
        """Messages that were read and not committed."""
        return self._feed.in_hand

    def leave(self) -> None:
        """Give the partition back after the commit under way, if there is one."""
        self._interrupted(Leave())

    def lose(self) -> None:
        """Somebody else may have it."""
        self._interrupted(Lost())

    async def run(self) -> bool:
        """Until it is to be given back (True), or was lost (False)."""
        event: Event = Taken()
        try:
            while True:
                before = self.state
                self.state, instructions = step(before, event, time.monotonic())
                self._log(before)
                answer = await self._act(instructions)
                if self.state.phase is Phase.AWAY:
                    return any(isinstance(each, GiveBack) for each in instructions)
                event = answer or await self._next()
        finally:
            await self._drop()

    async def _act(self, instructions: tuple[Instruction, ...]) -> Event | None:
        """What is answered at once is; the rest comes from the feed."""
        answer: Event | None = None
        for each in instructions:
            match each:
                case Drop():
                    await self._drop()
                case Read(offset):
                    await self._read(offset)
                case Recover():
                    answer = await _asked(self._recover())
                case Begin():
                    answer = await _asked(self._begin())
                case Commit():
                    answer = await self._commit(each)
                case Wait():
                    answer = await self._pause(self.state.due - time.monotonic()) or Due()
                case GiveBack():
                    pass
        return answer

    async def _recover(self) -> Event:
        return Found(await self._link.recover())

    async def _begin(self) -> Event:
        return Ended(await self._link.begin())

    async def _commit(self, asked: Commit) -> Event:
        if asked.after_seconds:
            interrupted = await self._pause(asked.after_seconds)
            if isinstance(interrupted, Lost):
                return interrupted
            if interrupted is not None:
                self.state, _ = step(self.state, interrupted, time.monotonic())
        expired = self.reading.expired() if self.reading is not None else 0

        async def commit() -> Event:
            return Ended(await self._link.commit(asked.offset, asked.group, expired))

        event = await _asked(commit())
        if isinstance(event, Ended) and isinstance(event.outcome, Committed):
            self._feed.committed(len(asked.group.messages))
            self._books.committed(asked.group, expired, wall=time.time(), now=time.monotonic())
            await self._trials.progressed()
        return event

    async def _read(self, offset: Offset) -> None:
        """Begin to fill `_groups`. It ends with `_drop`; what goes wrong in it comes as an event."""
        group = await self._open.enter_async_context(asyncio.TaskGroup())
        filling = group.create_task(self._fill(offset))
        self._open.callback(filling.cancel)

    async def _fill(self, offset: Offset) -> None:
        async def fill() -> Event:
            async with self._link.read(offset) as reading:
                self.reading = reading
                await self._feed.fill(reading, self._trials.attempts, self._put)

        await self._tell(await _asked(fill()))

    async def _put(self, group: Group) -> None:
        await self._tell(Scored(group))

    async def _tell(self, event: Event) -> None:
        await self._groups.put(event)
        self._attention.set()

    async def _drop(self) -> None:
        await self._open.aclose()
        self.reading, self._feed.in_hand = None, 0
        self._groups = asyncio.Queue(_AHEAD)

    async def _next(self) -> Event:
        """An interruption, or what the feed has ready."""
        while True:
            if self._interrupt is not None:
                return self._taken_interrupt()
            if not self._groups.empty():
                return self._groups.get_nowait()
            self._attention.clear()
            await self._attention.wait()

    async def _pause(self, seconds: float) -> Event | None:
        """So long, or until interrupted."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                while self._interrupt is None:
                    self._attention.clear()
                    await self._attention.wait()
        except TimeoutError:
            return None
        return self._taken_interrupt()

    def _taken_interrupt(self) -> Event:
        assert self._interrupt is not None
        event, self._interrupt = self._interrupt, None
        return event

    def _interrupted(self, event: Event) -> None:
        """To be lost is more than to be asked to leave."""
        if not isinstance(self._interrupt, Lost):
            self._interrupt = event
        self._attention.set()

    def _log(self, before: State) -> None:
        problem = self.state.problem
        if problem is not None and problem != before.problem:
            log.warning("partition %d: %s: %s", self.number, problem.reason, problem.message)
        if self.state.phase is Phase.FOLLOWING and before.phase in (Phase.RECOVERING, Phase.BEGINNING):
            position = self.state.offset.position if self.state.offset else 0
            log.info("partition %d: follows from position %d", self.number, position)


async def _asked(answer: Awaitable[Event]) -> Event:
    """The answer, or the event that an error is. Others are defects and end the runner."""
    try:
        return await answer
    except Away as error:
        return Broke(error.reason, error.message)
    except Torn as error:
        return Broke(Reason.BROKER_UNREACHABLE, error.message)
    except Refused as error:
        return Forbidden(error.reason, error.message)
    except RetryLater as error:
        return Broke(Reason.CRASHED, error.message)
    except UserError as error:
        return Forbidden(getattr(error, "reason", Reason.INVALID), error.message)
