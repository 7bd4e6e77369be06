"""Ahead of the commits of one partition: reads messages, scores them and makes groups of them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.bench import MOST_ROWS_AT_ONCE, Bench, joined
from modelyard.runtime.streams.port import Reading
from modelyard.runtime.streams.records import Group, Message

_log = logging.getLogger(__name__)
MOST_OUTGOING = 998
"""Of one commit to a broker: with the offset and what opens the batch it is 1,000, as many as one takes at once."""
MOST_BYTES = 8 * 2**20
MOST_FILE_BYTES = 64 * 2**20
"""Of a group, before it is committed although there is room for more records."""
CAREFUL_FROM = 3
"""From this attempt on messages go one by one (for files a few at a time), through a model in a process of its own."""

Begin = Callable[[int], Awaitable[int]]
"""The position of a message that is about to be scored -> how often that has begun, this time included."""
Put = Callable[[Group], Awaitable[None]]


@dataclass(kw_only=True, slots=True)
class Feed:
    """files: the sink takes files. most_bytes: of a message that the sink takes."""

    bench: Bench
    files: bool
    most_bytes: int
    in_hand: int = 0
    """Messages that were read and not committed."""
    _per_message: float = 1.0
    """Records, lately."""
    _progressed: asyncio.Event = field(default_factory=asyncio.Event)

    def committed(self, messages: int) -> None:
        """So many are done."""
        self.in_hand -= messages
        self._progressed.set()

    async def fill(self, reading: Reading, begin: Begin, put: Put) -> NoReturn:
        """Put groups until cancelled. Raises what readings and models raise, and Refused for a record that stops it.

        What a runner had in hand when it ended is tried again from its first message on. If that happens again and
        again, its messages are tried one by one (for files in ever smaller groups), so that all before the one that
        ends it get done; that one is then the first, and is given up in the end.
        """
        messages = await self._next(reading, self._most())
        attempts = await begin(messages[0].position)
        if attempts > self.bench.work.max_deliver:
            _log.warning("message %d has ended %d runners and is not tried again", messages[0].position, attempts - 1)
            await self._put_good(self.bench.give_up(messages.pop(0)), put)
        if attempts >= self._careful_from:
            _log.warning("what begins at message %d was tried %d times before", messages[0].position, attempts - 1)
            await self._carefully(messages, reading, put, attempts)
            messages = []
        while True:
            await self._gather(messages or await self._next(reading, self._most()), reading, put)
            messages = []

    async def _carefully(self, messages: list[Message], reading: Reading, put: Put, attempts: int) -> None:
        """As many as one group had, so that the one that ended the runner is among them."""
        left, size = self._rows, 1
        if self.files:
            left, size = self._together(attempts - 1), self._together(attempts)
        while left > 0:
            await self._settled(len(messages))
            some = messages[:size] or await self._next(reading, size)
            messages = messages[len(some) :]
            left -= len(some)
            await self._put_good(await self._score(some, careful=True), put)
        if messages:
            await self._gather(messages, reading, put)

    async def _settled(self, rest: int) -> None:
        """All but the rest is committed: a runner that ends then takes nothing along that was scored well."""
        while self.in_hand > rest:
            self._progressed.clear()
            await self._progressed.wait()

    async def _gather(self, messages: list[Message], reading: Reading, put: Put) -> None:
        """One group: what comes within its time, as long as there is room."""
        batch = self.bench.work.batch
        until = time.monotonic() + batch.wait_seconds
        most_bytes = MOST_FILE_BYTES if self.files else MOST_BYTES
        size = sum(len(each.payload) for each in messages)
        done: list[Group] = []
        while True:
            waiting = int(len(messages) * self._per_message)
            if waiting >= MOST_ROWS_AT_ONCE:
                done.append(await self._score(messages, careful=False))
                messages, waiting = [], 0
            rows = waiting + sum(each.records for each in done)
            left = until - time.monotonic()
            if rows >= self._rows or size >= most_bytes or left <= 0:
                break
            more = await self._within(left, reading, self._rows - rows)
            size += sum(len(each.payload) for each in more)
            messages = [*messages, *more]
        if messages:
            done.append(await self._score(messages, careful=False))
        await self._put_good(joined(done), put)

    async def _next(self, reading: Reading, most: int) -> list[Message]:
        found = list(await reading.next(most))
        self.in_hand += len(found)
        return found

    async def _within(self, seconds: float, reading: Reading, rows: int) -> Sequence[Message]:
        try:
            async with asyncio.timeout(seconds):
                return await self._next(reading, max(1, int(rows / self._per_message)))
        except TimeoutError:
            return ()

    async def _score(self, messages: Sequence[Message], *, careful: bool) -> Group:
        group = await self.bench.score(messages, careful=careful, most_bytes=self.most_bytes)
        self._per_message = max(1.0, group.records / len(messages))
        return group

    async def _put_good(self, group: Group, put: Put) -> None:
        """Without dead letters only what comes before the first bad record."""
        bad = next((each for each in group.outgoing if each.dead), None)
        if bad is None or self.bench.work.dead_letter:
            await self._put_fitting(group, put)
            return
        before = [each for each in group.messages if each.position < bad.position]
        if before:
            await self._put_fitting(await self._score(before, careful=False), put)
        raise Refused(
            Reason.RECORD_FAILED,
            f"message {bad.position} of {self.bench.work.source.stream} cannot be scored: "
            f"{bad.headers.get('Modelyard-Error', 'no reason is known')}; set spec.deadLetter, so that such records "
            "are put aside, or correct the model",
        )

    async def _put_fitting(self, group: Group, put: Put) -> None:
        """In halves where lists with bad records in them became more messages than a broker takes at once. That is so
        rare that scoring them again costs nothing."""
        if self.files or len(group.outgoing) <= MOST_OUTGOING or len(group.messages) == 1:
            await put(group)
            return
        middle = len(group.messages) // 2
        for half in (group.messages[:middle], group.messages[middle:]):
            await self._put_fitting(await self._score(half, careful=False), put)

    def _together(self, attempts: int) -> int:
        """Messages of one file: a file for each of a hundred thousand helps nobody, so they get fewer with each attempt
        that came to nothing, and in the end the message is alone that ends runners."""
        if attempts >= self.bench.work.max_deliver:
            return 1
        if attempts < CAREFUL_FROM:
            return self._rows
        return max(1, int(self._rows / 50.0 ** (attempts - CAREFUL_FROM + 1)))

    def _most(self) -> int:
        return max(1, int(self._rows / self._per_message))

    @property
    def _careful_from(self) -> int:
        """Nothing is given up that was not tried alone."""
        return min(CAREFUL_FROM, self.bench.work.max_deliver)

    @property
    def _rows(self) -> int:
        rows = self.bench.work.batch.rows
        return rows if self.files else min(rows, MOST_OUTGOING)
