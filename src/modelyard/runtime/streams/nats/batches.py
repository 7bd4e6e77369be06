"""Messages and headers of a commit. Pure.

Sources: ADR-50 (atomic batches: the headers; at most 1000 messages), ADR-43 (`Nats-TTL: never` outlives `max_age`),
https://docs.nats.io/nats-concepts/jetstream/headers (`Nats-Rollup: sub` leaves one message of a subject).
"""

import re
from collections.abc import Mapping, Sequence

import msgspec

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.letters import SEQUENCE
from modelyard.runtime.streams.nats.session import Request
from modelyard.runtime.streams.nats.source import Identity
from modelyard.runtime.streams.records import Group, Offset, Outgoing
from modelyard.wire.work import StreamWork

MOST_OUTGOING = 998
"""Of one commit, besides the offset and what opens the batch."""
_OURS = 256
"""Bytes of the headers that a commit adds."""
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class _Totals(msgspec.Struct, frozen=True, rename="camel"):
    stream: str
    created: str


class OffsetMessage(msgspec.Struct, frozen=True, rename="camel"):
    """The payload of an offset. source: which stream the position belongs to."""

    position: int
    records: int
    dead_letters: int
    expired: int
    source: _Totals

    @classmethod
    def of(cls, offset: Offset, source: Identity) -> "OffsetMessage":
        return cls(
            position=offset.position,
            records=offset.records,
            dead_letters=offset.dead_letters,
            expired=offset.expired,
            source=_Totals(source.stream, source.created),
        )

    def offset(self, fence: int) -> Offset:
        return Offset(
            position=self.position,
            fence=fence,
            records=self.records,
            dead_letters=self.dead_letters,
            expired=self.expired,
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.source.stream, self.source.created)


def after(offset: Offset, group: Group, expired: int) -> Offset:
    """What is committed with a group; the fence is not known yet."""
    return Offset(
        position=group.last,
        records=offset.records + group.records,
        dead_letters=offset.dead_letters + group.dead_letters,
        expired=offset.expired + expired,
    )


def request(work: StreamWork, outgoing: Outgoing) -> Request:
    """A message for the sink, which tells what it is made of."""
    subject = work.dead_letter if outgoing.dead else work.sink.subject
    return Request(subject, outgoing.payload, kept(outgoing.headers) | {SEQUENCE: str(outgoing.position)})


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that go on to the sink. `Nats-*` of a publisher are orders to the broker, and were not given to ours."""
    return {
        name: value for name, value in headers.items() if not name.lower().startswith("nats-") and _NAME.fullmatch(name)
    }


def size(outgoing: Outgoing) -> int:
    """Bytes that count towards what the broker takes at most, with the headers of a batch."""
    headers = sum(len(name) + len(value.encode()) + 4 for name, value in kept(outgoing.headers).items())
    return len(outgoing.payload) + headers + _OURS


def check(group: Group, most_bytes: int, most: int | None = None) -> None:
    """Raise Refused for what the broker would not take, before anything of it is sent."""
    if most is not None and len(group.outgoing) > most:
        raise Refused(
            Reason.STREAM_UNSUITABLE,
            f"{len(group.outgoing)} messages cannot be committed at once, at most {most} can; lower `batch.rows`",
        )
    large = next((each for each in group.outgoing if size(each) > most_bytes), None)
    if large is not None:
        raise Refused(
            Reason.RECORD_FAILED,
            f"what record {large.position} became has {size(large)} bytes, and the broker takes {most_bytes}; raise "
            "its `max_payload`, or keep fewer fields",
        )


def fenced(subject: str, message: OffsetMessage, fence: int) -> Request:
    """The offset, which the broker takes only if the last one is `fence` (0: there is none)."""
    headers = {"Nats-Expected-Last-Subject-Sequence": str(fence), "Nats-TTL": "never", "Nats-Rollup": "sub"}
    return Request(subject, msgspec.json.encode(message), headers)


def atomic(batch: str, requests: Sequence[Request]) -> list[Request]:
    """One batch of them; it is committed by the last one."""
    found = []
    for number, each in enumerate(requests, 1):
        headers = dict(each.headers or {}) | {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == len(requests):
            headers["Nats-Batch-Commit"] = "1"
        found.append(Request(each.subject, each.payload, headers))
    return found
