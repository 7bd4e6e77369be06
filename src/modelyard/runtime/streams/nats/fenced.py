"""Exactly-once, NATS to NATS: outputs, dead letters and the offset in one atomic batch that is fenced by the offset.

The broker checks `Nats-Expected-Last-Subject-Sequence` of the offset's subject when the batch is committed, under its
lock (ADR-50), so of two runners with the same offset one commits and the other is told. The offset's subject is written
once in a batch, as ADR-50 asks. Nothing is ever sent twice: a commit whose end is not known is settled by reading the
offset again, and a late one that still comes through finds the fence moved, or moves it for the next.
"""

import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import msgspec

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.batches import (
    MOST_OUTGOING,
    OffsetMessage,
    after,
    atomic,
    check,
    fenced,
    request,
)
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.faults import (
    BATCH_INCOMPLETE,
    BATCHES_IN_FLIGHT,
    FULL,
    WRONG_SEQUENCE,
    ApiError,
    translate,
)
from modelyard.runtime.streams.nats.leftovers import Key, Opening, Subjects, key_of, leftovers, opening
from modelyard.runtime.streams.nats.reader import PullReading
from modelyard.runtime.streams.nats.session import NobodyListens, Request, Session, decoded
from modelyard.runtime.streams.nats.source import Identity, Source
from modelyard.runtime.streams.nats.stored import last
from modelyard.runtime.streams.nats.subjects import offset_subject, opening_subject
from modelyard.runtime.streams.port import Away, Busy, Committed, Fenced, Outcome, Unknown
from modelyard.runtime.streams.records import Group, Offset
from modelyard.wire.work import StreamWork

_COMMIT_SECONDS = 10.0
_BUSY_SECONDS = 1.0
_SOON_SECONDS = 0.1
_FULL_SECONDS = 2.0


class FencedLink:
    """`port.Link` of one partition. sink: the broker of the sink; source: that of the source, often the same."""

    def __init__(self, source: Broker, sink: Broker, work: StreamWork, partition: int) -> None:
        self._work = work
        self._sink = sink
        self._source = Source(source, work, partition)
        self._subject = offset_subject(work, partition)
        self._subjects = Subjects(work.sink.stream, opening_subject(work, partition), work.dead_letter)
        self._identity: Identity | None = None
        self._visible: frozenset[Key] = frozenset()
        """Messages that come after the offset and are in the sink."""

    async def recover(self) -> Offset | None:
        """As of `port.Link`. Refused where the source is not the stream that the offset belongs to."""
        self._identity = await self._source.identity()
        session = await self._sink.session()
        found = await last(session, self._work.sink.stream, self._subject)
        self._visible = frozenset()
        if found is None:
            return None
        self._visible = await leftovers(session, self._subjects, found.sequence)
        try:
            message = msgspec.json.decode(found.payload, type=OffsetMessage)
        except msgspec.DecodeError:
            raise Refused(
                Reason.OFFSET_LOST,
                f"what lies on {self._subject} is no offset of this release; delete that message, and set `start`",
            ) from None
        if message.identity != self._identity:
            raise replaced(message.identity, self._identity)
        return message.offset(found.sequence)

    async def begin(self) -> Outcome:
        """As of `port.Link`."""
        self._identity = self._identity or await self._source.identity()
        offset = Offset(position=await self._source.start())
        return await self._publish(await self._sink.session(), offset, self._identity, fence=0)

    def read(self, after: Offset) -> AbstractAsyncContextManager[PullReading]:
        """As of `port.Link`."""
        return self._source.read(after.position)

    async def commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        """As of `port.Link`. Where Away is raised, nothing was committed.

        At most MOST_OUTGOING messages, none larger than the broker takes; more is refused before anything is sent.
        """
        identity = self._identity or await self._source.identity()
        session = await self._sink.session()
        done = after(offset, group, expired)
        outgoing = [each for each in group.outgoing if key_of(each) not in self._visible]
        if not outgoing:
            return await self._publish(session, done, identity, offset.fence)
        check(group, session.most_bytes, MOST_OUTGOING)
        batch = secrets.token_hex(16)
        requests = [
            opening(self._subjects.opening, Opening(batch, tuple(self._visible))),
            *(request(self._work, each) for each in outgoing),
            fenced(self._subject, OffsetMessage.of(done, identity), offset.fence),
        ]
        outcome = await self._send(session, atomic(batch, requests), done)
        if isinstance(outcome, Busy):
            self._visible = await leftovers(session, self._subjects, offset.fence)
        return outcome

    async def _publish(self, session: Session, offset: Offset, identity: Identity, fence: int) -> Outcome:
        """The offset alone."""
        return await self._send(session, [fenced(self._subject, OffsetMessage.of(offset, identity), fence)], offset)

    async def _send(self, session: Session, requests: Sequence[Request], offset: Offset) -> Outcome:
        """All of them, at once. The first one asks for an answer too, which has the cause of what fails early."""
        session.check()
        try:
            with session.requests() as asked:
                async with session.scope(_COMMIT_SECONDS):
                    early = await asked.ask(requests[0])
                    for each in requests[1:-1]:
                        await session.publish(each.subject, each.payload, each.headers)
                    end = await asked.ask(requests[-1]) if len(requests) > 1 else early
                    answer = decoded(await end.message())
        except ApiError as error:
            if error.code == BATCH_INCOMPLETE and (cause := session.refusal(each.subject for each in requests)):
                raise cause from None
            return self._failed(early.error or error)
        except NobodyListens:
            raise  # to the commit, or the offset: nothing is committed without it
        except Away as error:
            return Unknown(error.message)
        self._visible = frozenset(each for each in self._visible if each[0] > offset.position)
        return Committed(replace(offset, fence=int(answer["seq"])))

    def _failed(self, error: ApiError) -> Outcome:
        """Nothing was committed. Raises Refused."""
        if error.code in WRONG_SEQUENCE:
            return Fenced()
        doing = f"committing to stream {self._work.sink.stream}"
        if error.code == BATCHES_IN_FLIGHT:  # 50 at once for a stream; those of killed runners stay for 10 s
            return Busy(_BUSY_SECONDS, f"{doing}: {error.description}; it is tried again")
        if error.code == BATCH_INCOMPLETE:  # the broker gave it up, after 10 s or with a new leader
            return Busy(_SOON_SECONDS, f"{doing}: {error.description}; it is tried again")
        known = translate(error, doing)
        if isinstance(known, Refused):
            raise known
        if error.code in FULL:
            return Busy(_FULL_SECONDS, known.message, known.reason)
        return Unknown(known.message)


def replaced(before: Identity, now: Identity) -> Refused:
    """Positions of another stream mean nothing here."""
    same = before.stream == now.stream
    what = (
        f"stream {now.stream} was deleted and made again" if same else f"the source was stream {before.stream} before"
    )
    return Refused(
        Reason.SOURCE_REPLACED,
        f"{what}, and the committed offset belongs to that one; give the ModelStream a new name, under which it begins "
        f"as `start` says, or {'restore' if same else 'name'} the earlier stream",
    )
