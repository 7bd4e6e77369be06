"""The source of one partition, read without acknowledgements: what was read is told by an offset that others keep.

Source: https://docs.nats.io/nats-concepts/jetstream/consumers; by hand, since what nats-py's ordered consumers do on
their own (they begin anew in silence) must be known here.
"""

import math
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.faults import STREAM_NOT_FOUND, ApiError, translate
from modelyard.runtime.streams.nats.reader import PullReading
from modelyard.runtime.streams.nats.session import Session
from modelyard.runtime.streams.nats.setup import stream_info
from modelyard.runtime.streams.port import Away
from modelyard.wire.work import StreamWork, partition_subjects

_IDLE_SECONDS = 300
"""After which the broker removes a consumer that nobody asks: more than any batch takes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which stream positions belong to. created: as the broker writes it; a stream made anew begins at 1 again."""

    stream: str
    created: str


class Source:
    """Messages of one partition."""

    def __init__(self, broker: Broker, work: StreamWork, partition: int) -> None:
        self.broker = broker
        self.stream = work.source.stream
        self.filters = partition_subjects(work.source.subjects, work.key_token, partition)
        self._start = work.start

    async def identity(self) -> Identity:
        """Raises Away and Refused."""
        return Identity(self.stream, (await self._info(await self.broker.session()))["created"])

    async def retention(self, session: Session) -> str:
        """limits, workqueue or interest. Raises Away and Refused."""
        return str((await self._info(session))["config"].get("retention", "limits"))

    async def start(self) -> int:
        """The position after which a partition begins that has no offset. Raises Away and Refused."""
        session = await self.broker.session()
        if self._start.at == "sequence":
            return max(0, self._start.sequence - 1)
        if self._start.at == "time":
            return await self._before(session, self._start.time)
        state = (await self._info(session))["state"]
        if self._start.at == "earliest":
            return max(0, int(state["first_seq"]) - 1)
        return int(state["last_seq"])

    @asynccontextmanager
    async def read(self, position: int) -> AsyncIterator[PullReading]:
        """What comes after it. Raises Away, Refused and Torn."""
        session = await self.broker.session()
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": position + 1}
        name, _ = await self._consumer(session, start)
        reading = PullReading(session, self.stream, name, filters=self.filters, after=position, first=1)
        try:
            await reading.open()
            yield reading
        finally:
            with suppress(Away):
                await reading.close()
                await self._remove(session, name)

    async def _before(self, session: Session, time: float) -> int:
        """The last position before a time: what a consumer that starts there begins after."""
        whole = math.floor(time)  # never later than what was asked for
        microseconds = math.floor((time - whole) * 1e6)
        at = f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds:06d}Z"
        name, info = await self._consumer(session, {"deliver_policy": "by_start_time", "opt_start_time": at})
        await self._remove(session, name)
        return int(info["delivered"]["stream_seq"])

    async def _consumer(self, session: Session, start: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        name = f"modelyard_{secrets.token_hex(8)}"
        config = {
            "name": name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "max_waiting": 16,
            "inactive_threshold": _IDLE_SECONDS * 10**9,
            **filtering(self.filters),
            **start,
        }
        body = {"stream_name": self.stream, "config": config, "action": "create"}
        try:
            return name, await session.api(f"CONSUMER.CREATE.{self.stream}.{name}", body)
        except ApiError as error:
            if error.code == STREAM_NOT_FOUND:
                raise missing(self.stream) from None
            raise translate(error, f"reading stream {self.stream}") from None

    async def _remove(self, session: Session, name: str) -> None:
        """Nobody waits for it; what stays, the broker removes."""
        async with session.scope():
            await session.publish(f"$JS.API.CONSUMER.DELETE.{self.stream}.{name}", reply=session.new_inbox())

    async def _info(self, session: Session) -> dict[str, Any]:
        info = await stream_info(session, self.stream)
        if info is None:
            raise missing(self.stream)
        return info


def filtering(filters: tuple[str, ...]) -> dict[str, Any]:
    """Of a consumer: more than one filter has a field of its own."""
    return {"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": list(filters)}


def missing(stream: str) -> Refused:
    return Refused(
        Reason.STREAM_NOT_FOUND,
        f"stream {stream} is not there any more; restore it, or apply a ModelStream of another name: offsets of one "
        "stream mean nothing in another",
    )
