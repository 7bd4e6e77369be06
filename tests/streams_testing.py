"""One partition in memory, for lanes: the twin of the real links, and a bench without a model."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from modelyard.base.conditions import Reason
from modelyard.runtime.streams.bench import Bench
from modelyard.runtime.streams.port import Away, Busy, Committed, Fenced, Outcome, Torn, Unknown
from modelyard.runtime.streams.records import Group, Message, Offset, Outgoing
from modelyard.wire.work import BatchWork, ModelWork, SinkWork, SourceWork, StreamWork


def work(**changes: object) -> StreamWork:
    """Of the stream `default.s`."""
    fields: dict[str, object] = {
        "name": "default.s",
        "revision": "s-stream-00001",
        "model": ModelWork(name="m", digest="sha256:0", format="onnx"),
        "source": SourceWork(uri="nats://local", stream="in", subjects=("in.>",)),
        "sink": SinkWork(uri="nats://local", stream="out", subject="out.scored"),
        "delivery": "exactlyOnce",
        "batch": BatchWork(rows=4, wait_seconds=0.0),
        "dead_letter": "out.dead",
    }
    return StreamWork(**{**fields, **changes})  # type: ignore[arg-type]


def message(position: int, payload: bytes = b"x") -> Message:
    return Message(position=position, subject="in.a", payload=payload)


class Echo(Bench):
    """Gives back what came; `bad` in a payload is a record that cannot be scored, `list` becomes two messages."""

    def __init__(self, asked: StreamWork) -> None:
        self.work = asked
        self.calls: list[tuple[list[int], bool]] = []
        self.during: Callable[[], None] = lambda: None

    async def score(self, messages: Sequence[Message], *, careful: bool, most_bytes: int) -> Group:
        self.calls.append(([each.position for each in messages], careful))
        self.during()
        await asyncio.sleep(0)
        outgoing = [each for one in messages for each in _answers(one)]
        dead = sum(each.dead for each in outgoing)
        return Group(messages=tuple(messages), outgoing=tuple(outgoing), records=len(outgoing), dead_letters=dead)

    def give_up(self, message: Message) -> Group:
        gone = Outgoing(position=message.position, payload=message.payload, dead=True)
        return Group(messages=(message,), outgoing=(gone,), records=1, dead_letters=1)


def _answers(one: Message) -> list[Outgoing]:
    headers = {"Modelyard-Error": "WrongType: x"} if b"bad" in one.payload else {}
    kinds = [True] if one.payload == b"bad" else [False, True] if b"list" in one.payload else [False]
    return [Outgoing(position=one.position, payload=one.payload, headers=headers, dead=dead) for dead in kinds]


@dataclass
class MemoryPartition:
    """What lies at both ends. faults: how the next commits end; "" is well."""

    source: list[Message] = field(default_factory=list)
    log: list[Outgoing] = field(default_factory=list)
    offset: Offset | None = None
    faults: deque[str] = field(default_factory=deque)
    away: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    readings: int = 0

    def publish(self, *messages: Message) -> None:
        self.source += messages
        self.arrived.set()

    def positions(self) -> list[int]:
        return [each.position for each in self.log]


class MemoryLink:
    """As `port.Link`."""

    def __init__(self, partition: MemoryPartition) -> None:
        self._there = partition

    def _reach(self) -> None:
        if self._there.away:
            raise Away(Reason.BROKER_UNREACHABLE, "the broker does not answer")

    async def recover(self) -> Offset | None:
        self._reach()
        return self._there.offset

    async def begin(self) -> Outcome:
        self._reach()
        if self._there.offset is not None:
            return Fenced()
        self._there.offset = Offset(position=0, fence=1)
        return Committed(self._there.offset)

    @asynccontextmanager
    async def read(self, after: Offset) -> AsyncIterator["MemoryReading"]:
        self._reach()
        self._there.readings += 1
        yield MemoryReading(self._there, after.position)

    async def commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        self._reach()
        await asyncio.sleep(0)
        fault = self._there.faults.popleft() if self._there.faults else ""
        if fault == "busy":
            return Busy(0.01, "full", Reason.BROKER_FULL)
        if fault == "lost there":
            return Unknown("no reply")
        before = self._there.offset
        if before is None or before.fence != offset.fence:
            return Fenced()
        self._there.log += group.outgoing
        self._there.offset = Offset(
            position=group.last,
            fence=before.fence + 1,
            records=before.records + group.records,
            dead_letters=before.dead_letters + group.dead_letters,
            expired=before.expired + expired,
        )
        return Unknown("no reply") if fault == "lost back" else Committed(self._there.offset)


class MemoryReading:
    """As `port.Reading`."""

    def __init__(self, partition: MemoryPartition, after: int) -> None:
        self._there = partition
        self._after = after

    async def next(self, most: int) -> Sequence[Message]:
        while True:
            if self._there.away:
                raise Torn("cut")
            found = [each for each in self._there.source if each.position > self._after][:most]
            if found:
                self._after = found[-1].position
                return found
            self._there.arrived.clear()
            await self._there.arrived.wait()

    async def lag(self) -> int | None:
        return sum(each.position > self._after for each in self._there.source)

    def expired(self) -> int:
        return 0
