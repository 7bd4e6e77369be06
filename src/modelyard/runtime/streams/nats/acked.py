"""At least once: a durable consumer that forgets a message only when what it became is stored.

Outputs carry `Nats-Msg-Id`, so that those of a second try are dropped within the sink's `duplicate_window`; nothing
relies on it. Every acknowledgement is confirmed by the broker: to confirm the last one would do on one connection,
which keeps their order, but a consumer with replicas confirms what was agreed on, each for itself; and an unconfirmed
one means only that a message comes again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.batches import after, check, request
from modelyard.runtime.streams.nats.beside import beside
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.faults import (
    CONSUMER_EXISTS,
    CONSUMER_NOT_FOUND,
    FULL,
    STREAM_NOT_FOUND,
    ApiError,
    translate,
)
from modelyard.runtime.streams.nats.reader import MOST_MESSAGES, PullReading
from modelyard.runtime.streams.nats.session import Request, Session, ask_all, decoded
from modelyard.runtime.streams.nats.source import Source, filtering, missing
from modelyard.runtime.streams.nats.subjects import durable
from modelyard.runtime.streams.port import Away, Busy, Committed, Fenced, Outcome, Unknown
from modelyard.runtime.streams.records import Group, Message, Offset
from modelyard.wire.work import StreamWork

ACK_SECONDS = 10
"""After which a message comes again that nobody works on any more."""
_PROGRESS_SECONDS = ACK_SECONDS / 3
_MOST_PENDING = 16 * MOST_MESSAGES
_FULL_SECONDS = 2.0


class AckedReading(PullReading):
    """`port.Reading` of a durable consumer. unsettled: what was delivered and is not acknowledged, by its reply."""

    def __init__(self, session: Session, source: Source, consumer: str, after: int, *, keeps: bool) -> None:
        """keeps: the stream removes nothing because it was acknowledged."""
        super().__init__(session, source.stream, consumer, filters=source.filters, after=after, first=None)
        self._keeps = keeps
        self.unsettled: dict[str, None] = {}

    async def next(self, most: int) -> Sequence[Message]:
        found = await super().next(most)
        self.unsettled.update((each.reply, None) for each in found)
        return found

    def unread(self, info: dict[str, Any]) -> int:
        """Messages that are delivered and were not given: those under way, and what earlier readers left."""
        delivered = int(info.get("num_ack_pending", 0)) - len(self.unsettled)
        return int(info.get("num_pending", 0)) + max(0, delivered)

    def expired(self) -> int:
        return super().expired() if self._keeps else 0

    async def keep(self) -> None:
        """Tell the broker again and again that messages are worked on."""
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            with suppress(Away):
                await self.tell(b"+WPI")

    async def tell(self, word: bytes) -> None:
        """About everything that is unsettled, given or not. Raises Away."""
        await tell(self.session, self.replies(), word)

    def replies(self) -> list[str]:
        """Of everything that is unsettled, in the order in which it came."""
        return [*self.unsettled, *(each.reply for each in self._waiting)]


async def tell(session: Session, replies: Iterable[str], word: bytes) -> None:
    """An acknowledgement of another kind, which nobody confirms. Raises Away."""
    for reply in replies:
        async with session.scope():
            await session.publish(reply, word)


class AckedLink:
    """`port.Link` of one partition. The totals of an Offset begin at 0 with every `recover`."""

    def __init__(self, source: Broker, sink: Broker, work: StreamWork, partition: int) -> None:
        self._work = work
        self._sink = sink
        self._source = Source(source, work, partition)
        self._partition = partition
        self._durable = durable(work, partition)
        self._reading: AckedReading | None = None
        self._left: list[str] = []
        """What could not be given back: the connection was lost."""

    async def recover(self) -> Offset | None:
        """As of `port.Link`: what everything before was acknowledged."""
        session = await self._source.broker.session()
        try:
            info = await session.api(f"CONSUMER.INFO.{self._source.stream}.{self._durable}")
        except ApiError as error:
            if error.code == CONSUMER_NOT_FOUND:
                return None
            raise self._told(error, "reading") from None
        config = info["config"]
        has = tuple(config.get("filter_subjects") or (config.get("filter_subject"),))
        if has != self._source.filters:
            config = {key: value for key, value in config.items() if not key.startswith("filter_subject")}
            await self._make(session, config | filtering(self._source.filters), "update")
        return Offset(position=int(info["ack_floor"]["stream_seq"]))

    async def begin(self) -> Outcome:
        """As of `port.Link`."""
        session = await self._source.broker.session()
        position = await self._source.start()
        try:
            made = await self._make(session, self._config(position, await self._source.retention(session)), "create")
        except ApiError as error:
            if error.code in CONSUMER_EXISTS:
                return Fenced()
            raise self._told(error, "following") from None
        except Refused:
            raise
        except Away as error:
            return Unknown(error.message)
        return Committed(Offset(position=int(made["ack_floor"]["stream_seq"])))

    @asynccontextmanager
    async def read(self, after: Offset) -> AsyncIterator[AckedReading]:
        """As of `port.Link`, after what was acknowledged. At the end, whatever is not committed is given back."""
        session = await self._source.broker.session()
        keeps = await self._source.retention(session) == "limits"
        reading = AckedReading(session, self._source, self._durable, after.position, keeps=keeps)
        try:
            await tell(session, self._left, b"-NAK")
            self._left = []
            await reading.open()
            self._reading = reading
            async with beside(reading.keep()):
                yield reading
        finally:
            self._reading = None
            with suppress(Away, ApiError):
                await self._give_back(reading)
            if session.lost:
                self._left += reading.replies()

    async def _give_back(self, reading: AckedReading) -> None:
        """In order, and nothing before what is under way has arrived, which else would come only after ACK_SECONDS."""
        await reading.close(drain=True)
        # Makes the broker notice that nobody waits for the open request any more: it would take the first message from
        # the queue for it, and put it back at the end.
        await reading.session.api(f"CONSUMER.INFO.{reading.stream}.{reading.consumer}")
        await reading.tell(b"-NAK")

    async def commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        """As of `port.Link`: store what the group became, then acknowledge it. What fails in between comes again."""
        sink, source = await self._sink.session(), await self._source.broker.session()
        check(group, sink.most_bytes)
        try:
            for answer in await ask_all(sink, self._publishing(group)):
                decoded(answer)
            await ask_all(source, (Request(each.reply, b"+ACK") for each in group.messages))
        except ApiError as error:
            known = translate(error, f"writing to stream {self._work.sink.stream}")
            if isinstance(known, Refused):
                raise known from None
            if error.code in FULL:
                return Busy(_FULL_SECONDS, known.message, known.reason)
            return Unknown(known.message)
        except Away as error:
            return Unknown(error.message)
        if self._reading is not None:
            for each in group.messages:
                self._reading.unsettled.pop(each.reply, None)
        done = after(offset, group, expired)
        return Committed(replace(done, position=max(done.position, offset.position)))  # which come again are older

    def _publishing(self, group: Group) -> list[Request]:
        name = f"{self._work.name}/{self._partition}"
        found = []
        for each in group.outgoing:
            subject, payload, headers = request(self._work, each)
            ours = {"Nats-Msg-Id": f"{name}/{each.position}{'/dead' if each.dead else ''}"}
            found.append(Request(subject, payload, dict(headers or {}) | ours))
        return found

    def _config(self, position: int, retention: str) -> dict[str, Any]:
        start: dict[str, Any] = {"deliver_policy": "by_start_sequence", "opt_start_seq": position + 1}
        if retention == "workqueue":  # which gives everything that it still has, and takes no other policy
            start = {"deliver_policy": "all"}
        return {
            "name": self._durable,
            "durable_name": self._durable,
            "ack_policy": "explicit",
            "ack_wait": ACK_SECONDS * 10**9,
            "max_deliver": -1,
            "max_ack_pending": _MOST_PENDING,
            "max_waiting": 16,
            **filtering(self._source.filters),
            **start,
        }

    async def _make(self, session: Session, config: dict[str, Any], action: str) -> dict[str, Any]:
        stream = self._source.stream
        body = {"stream_name": stream, "config": config, "action": action}
        return await session.api(f"CONSUMER.CREATE.{stream}.{self._durable}", body)

    def _told(self, error: ApiError, doing: str) -> Away | Refused:
        if error.code == STREAM_NOT_FOUND:
            return missing(self._source.stream)
        return translate(error, f"{doing} stream {self._source.stream}")
