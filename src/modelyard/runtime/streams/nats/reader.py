"""Messages of a pull consumer, in order and without gaps, and never more of them in memory than two requests bring.

One request is open at a time; the next one is sent when it is complete and what waits is no more than another brings.
So there is something to work on while it is under way. A request brings a number of messages or of bytes, whichever is
reached first, so that memory is bounded whatever the lag.
Sources: https://docs.nats.io/reference/reference-protocols/nats_api_reference (MSG.NEXT), ADR-15 (the acknowledgement
subject), ADR-37 (heartbeats and statuses of pull requests).
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from modelyard.runtime.streams.nats.expiry import Expiry
from modelyard.runtime.streams.nats.faults import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, ApiError, translate
from modelyard.runtime.streams.nats.session import Session
from modelyard.runtime.streams.nats.subjects import holds_only
from modelyard.runtime.streams.port import Away, Torn
from modelyard.runtime.streams.records import Message

MOST_MESSAGES = 512
"""Of one request."""
_EXPIRES_SECONDS = 30.0
_HEARTBEAT_SECONDS = 2.0
_SILENCE_SECONDS = 2.5 * _HEARTBEAT_SECONDS
"""A request to a consumer that is gone is answered by nothing at all (nats.py#933)."""
_SHORT = 9
_LONG = 11
_OVERHEAD = 64 * 2**10
_COMPLETE = frozenset({"batch completed", "message size exceeds maxbytes"})
"""Of status 409, which else says that the consumer serves nobody any more."""


class Delivery(NamedTuple):
    """What the acknowledgement subject tells. consumer: which delivery of the consumer this is, without gaps."""

    delivered: int
    stream: int
    consumer: int
    nanoseconds: int


def delivery(reply: str) -> Delivery | None:
    """`$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQ.SEQ.TIME.PENDING`, newer with domain and account before the stream.

    None of what is no message of a stream.
    """
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    if len(tokens) != _SHORT and len(tokens) < _LONG:
        return None
    start = 4 if len(tokens) == _SHORT else 6
    return Delivery(*(int(each) for each in tokens[start : start + 4]))


class PullReading:
    """`port.Reading` of one consumer. `open` it, and `close` it at the end."""

    def __init__(
        self,
        session: Session,
        stream: str,
        consumer: str,
        *,
        filters: Sequence[str],
        after: int,
        first: int | None,
    ) -> None:
        """filters: of the consumer, which gives what comes after a position. first: the number of its first delivery;
        None if what is lost on its way comes again by itself."""
        self.session = session
        self.stream = stream
        self.consumer = consumer
        self._filters = filters
        self._expiry = Expiry(after)
        self._expected = first
        self._inbox = session.new_inbox()
        self._subscription: Subscription | None = None
        self._end_of_loss: Callable[[], None] | None = None
        self._waiting: deque[Message] = deque()
        self._request = 0
        self._open = 0
        """Messages that the open request may still bring; 0: there is none."""
        self._heard = 0.0
        self._torn = ""
        self._expired = 0
        self._wake = asyncio.Event()
        self.most_bytes = 2 * session.most_bytes + _OVERHEAD

    @property
    def waiting(self) -> int:
        """Messages in memory that `next` has not given."""
        return len(self._waiting)

    async def open(self) -> None:
        """Listen for messages, and look whether some have expired before."""
        self._subscription = await self.session.subscribe(
            f"{self._inbox}.*", self._arrived, 4 * MOST_MESSAGES, 4 * self.most_bytes
        )
        self._end_of_loss = self.session.on_loss(self._wake.set)
        await self.lag()

    async def next(self, most: int) -> Sequence[Message]:
        """As of `port.Reading`. Nothing is taken before there is no further wait, so that cancelling loses none."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self.session.check()
            if not self._torn and not self._open and len(self._waiting) <= MOST_MESSAGES:
                await self._ask()
            if self._waiting:
                return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            if self._torn:
                raise Torn(self._torn)
            try:
                async with asyncio.timeout_at(self._heard + _SILENCE_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                if loop.time() >= self._heard + _SILENCE_SECONDS:
                    self._tear("it is silent")

    async def lag(self) -> int | None:
        """As of `port.Reading`. What it finds also tells `expired`."""
        try:
            # In this order: what was gone at the first answer and is unread at the second was never read.
            stream = await self.session.api(f"STREAM.INFO.{self.stream}")
            info = await self.session.api(f"CONSUMER.INFO.{self.stream}.{self.consumer}")
        except ApiError as error:
            if error.code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                self._tear("it is gone")
                return None
            raise translate(error, f"asking for the lag of stream {self.stream}") from None
        unread = self.unread(info)
        whole = holds_only(stream["config"], self._filters)
        self._expired += self._expiry.looked(int(stream["state"]["first_seq"]), unread, whole=whole)
        return unread

    def unread(self, info: dict[str, object]) -> int:
        """Messages that `next` has not given, from an answer of CONSUMER.INFO."""
        delivered = info.get("delivered") or {}
        assert isinstance(delivered, dict)
        sent = int(delivered.get("consumer_seq", 0))
        under_way = max(0, sent + 1 - self._expected) if self._expected is not None else 0
        return int(str(info.get("num_pending", 0))) + under_way + len(self._waiting)

    def expired(self) -> int:
        """As of `port.Reading`, as far as `lag` has found."""
        found, self._expired = self._expired, 0
        return found

    async def close(self, *, drain: bool = False) -> None:
        """drain: what is under way still arrives. Raises Away."""
        if self._end_of_loss is not None:
            self._end_of_loss()
        subscription, self._subscription = self._subscription, None
        if subscription is None or self.session.lost:
            return
        try:
            async with self.session.scope():
                if drain:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                else:
                    await subscription.unsubscribe()
        except Away:
            # nats-py's reading task dies of an answer to a drain that was given up.
            self.session.lose("it did not end a subscription in time")
            raise

    async def _ask(self) -> None:
        """Send the next request."""
        self._request += 1
        self._open = MOST_MESSAGES
        self._heard = asyncio.get_running_loop().time()
        body = {
            "batch": MOST_MESSAGES,
            "max_bytes": self.most_bytes,
            "expires": int(_EXPIRES_SECONDS * 1e9),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * 1e9),
        }
        async with self.session.scope():
            await self.session.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.consumer}",
                json.dumps(body).encode(),
                reply=f"{self._inbox}.{self._request}",
            )

    def _arrived(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        found = delivery(message.reply)
        if found is None:
            self._told(message)
        elif not self._torn:
            self._take(message, found)

    def _take(self, message: Msg, found: Delivery) -> None:
        if self._expected is not None:
            if found.consumer != self._expected:
                self._tear("messages were lost on their way")
                return
            self._expected += 1
        self._open = max(0, self._open - 1)
        self._expiry.arrived(found.stream)
        self._waiting.append(
            Message(
                position=found.stream,
                subject=message.subject,
                payload=message.data,
                headers=message.headers or {},
                at=found.nanoseconds / 1e9,
                delivered=found.delivered,
                reply=message.reply,
            )
        )
        self._wake.set()

    def _told(self, message: Msg) -> None:
        """A status of a request: of the open one, or of an earlier one, which is over anyway."""
        headers = message.headers or {}
        status, text = headers.get("Status", ""), headers.get("Description", "")
        if message.subject != f"{self._inbox}.{self._request}" or status == "100":
            return
        if status in ("404", "408") or text.lower() in _COMPLETE:
            self._open = 0
            self._wake.set()
        else:
            self._tear(text or "nobody serves it" if status == "503" else f"{text} ({status})")

    def _tear(self, why: str) -> None:
        self._torn = self._torn or f"the consumer of stream {self.stream} has to be made again: {why}"
        self._wake.set()
