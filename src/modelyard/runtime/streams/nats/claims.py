"""Who works on which partition: claims, presence and attempts, as messages that end by themselves.

They lie in a stream of their own, in memory. A claim is a message that ends after 10 s unless it is renewed; it is
taken or renewed only if the last message of its subject is the one that was just read (none: 0), so one of two wins. A
claim ends in silence, as a release does: runners look again. A wrong claim costs time and no record, since commits are
fenced; with a broker that restarts all claims are gone.
Tried on 2.15 (`prototypes/streams-jobs/claims.py`). TTLs below one second are refused. Source: ADR-43.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.faults import (
    SEQUENCE_NOT_FOUND,
    STREAM_NOT_FOUND,
    WRONG_SEQUENCE,
    ApiError,
    translate,
)
from modelyard.runtime.streams.nats.session import NobodyListens, Session, decoded
from modelyard.runtime.streams.nats.setup import prepare_claims
from modelyard.runtime.streams.nats.stored import Stored, fetched
from modelyard.runtime.streams.nats.subjects import CLAIMS_STREAM, CLAIMS_SUBJECT, claims_key, token_of
from modelyard.wire.work import StreamWork

SECONDS = 10
"""After which a claim, or a runner that is not heard of, is over."""
_ATTEMPT_SECONDS = 3600
_T = TypeVar("_T")


class _Attempt(msgspec.Struct, frozen=True):
    position: int
    count: int


class Claims:
    """Of one runner. Methods raise Away and Refused. runner: differs between all that live at one time; one that is
    started again under the name of one that ended takes over what that one held."""

    def __init__(self, broker: Broker, work: StreamWork, runner: str) -> None:
        self._broker = broker
        self._runner = token_of(runner)
        self._revision = token_of(work.revision)
        self._root = f"{CLAIMS_SUBJECT}.{claims_key(work)}"
        self._held: dict[int, int] = {}
        """Partition -> the sequence of our claim."""
        self._looked = False
        self._shown: int | None = None

    async def claim(self, partition: int) -> bool:
        """Whether it is ours now."""
        found = await self._last(self._claim(partition))
        if found is not None and found.payload != self._runner.encode():
            return False
        # One that is ours already: its reply was lost.
        return await self._put(partition, found.sequence if found is not None else 0)

    async def renew(self, partition: int) -> bool:
        """Whether it is still ours."""
        sequence = self._held.get(partition)
        if sequence is None:
            return False
        return await self._put(partition, sequence) or await self._still(partition)

    async def release(self, partition: int) -> None:
        """Free at once, if it is still ours: the message is removed by its sequence, which only our claim has."""
        sequence = self._held.pop(partition, 0)
        if sequence:
            await self._remove(sequence)

    async def claimed(self) -> frozenset[int]:
        """Partitions that somebody has claimed. The first time without those of an earlier process of this runner: they
        can be claimed at once, and would else lie idle for SECONDS."""
        found = frozenset(int(each.rpartition(".")[2]) for each in await self._subjects(self._claim("*")))
        if self._looked:
            return found
        others = [each for each in sorted(found) if each in self._held or not await self._is_ours(each)]
        self._looked = True
        return frozenset(others)

    async def show(self) -> None:
        """This runner is there, for SECONDS."""
        headers = {"Nats-TTL": f"{SECONDS}s", "Nats-Rollup": "sub"}
        self._shown = await self._publish(self._live(self._runner), b"", headers)

    async def hide(self) -> None:
        """This runner is gone."""
        sequence, self._shown = self._shown, None
        if sequence:
            await self._remove(sequence)

    async def live(self) -> int:
        """Runners of this revision, this one included."""
        found = await self._subjects(self._live("*"))
        return len({*found, self._live(self._runner)})

    async def attempts(self, partition: int, position: int) -> int:
        """How often the partition was begun at this position, this time included; ends an hour after the last one."""
        subject = self._attempt(partition)
        found = await self._last(subject)
        count = 1
        if found is not None:
            with suppress(msgspec.DecodeError):
                before = msgspec.json.decode(found.payload, type=_Attempt)
                count = before.count + 1 if before.position == position else 1
        headers = {"Nats-TTL": f"{_ATTEMPT_SECONDS}s", "Nats-Rollup": "sub"}
        await self._publish(subject, msgspec.json.encode(_Attempt(position, count)), headers)
        return count

    async def progressed(self, partition: int) -> None:
        """Something was committed: no attempts are counted any more."""
        body = {"filter": self._attempt(partition)}
        await self._made(lambda session: session.api(f"STREAM.PURGE.{CLAIMS_STREAM}", body))

    async def _still(self, partition: int) -> bool:
        """A renewal whose reply was lost has a sequence that we do not know."""
        found = await self._last(self._claim(partition))
        if found is None or found.payload != self._runner.encode():
            return False
        return await self._put(partition, found.sequence)

    async def _is_ours(self, partition: int) -> bool:
        found = await self._last(self._claim(partition))
        return found is not None and found.payload == self._runner.encode()

    async def _put(self, partition: int, expected: int) -> bool:
        headers = {
            "Nats-TTL": f"{SECONDS}s",
            "Nats-Rollup": "sub",
            "Nats-Expected-Last-Subject-Sequence": str(expected),
        }
        sequence = await self._publish(self._claim(partition), self._runner.encode(), headers)
        if sequence is None:
            self._held.pop(partition, None)
            return False
        self._held[partition] = sequence
        return True

    async def _publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> int | None:
        """The sequence of what was stored; None where another was expected."""

        async def publish(session: Session) -> int | None:
            try:
                return int(decoded(await session.request(subject, payload, headers))["seq"])
            except ApiError as error:
                if error.code in WRONG_SEQUENCE:
                    return None
                raise

        return await self._made(publish)

    async def _last(self, subject: str) -> Stored | None:
        return await self._made(lambda session: fetched(session, CLAIMS_STREAM, subject))

    async def _subjects(self, subject: str) -> frozenset[str]:
        """That have a message. There are few: one for each partition, or runner."""
        info = await self._made(
            lambda session: session.api(f"STREAM.INFO.{CLAIMS_STREAM}", {"subjects_filter": subject})
        )
        return frozenset(info["state"].get("subjects") or ())

    async def _remove(self, sequence: int) -> None:
        """What was ended, replaced or forgotten meanwhile is not there any more, which is as good."""
        body = {"seq": sequence, "no_erase": True}
        try:
            await (await self._broker.session()).api(f"STREAM.MSG.DELETE.{CLAIMS_STREAM}", body)
        except ApiError as error:
            if error.code not in (SEQUENCE_NOT_FOUND, STREAM_NOT_FOUND):
                raise translate(error, "giving back a claim") from None

    async def _made(self, ask: Callable[[Session], Awaitable[_T]]) -> _T:
        """The answer, of a stream that is made when it is found missing, as after a restart of the broker."""
        session = await self._broker.session()
        try:
            try:
                return await ask(session)
            except NobodyListens:
                await prepare_claims(session)
            except ApiError as error:
                if error.code != STREAM_NOT_FOUND:
                    raise
                await prepare_claims(session)
            return await ask(session)
        except ApiError as error:
            await prepare_claims(session)  # which says what the stream lacks, if that is the cause
            raise translate(error, f"asking stream {CLAIMS_STREAM}") from None

    def _claim(self, partition: int | str) -> str:
        return f"{self._root}.claim.{partition}"

    def _live(self, runner: str) -> str:
        return f"{self._root}.live.{self._revision}.{runner}"

    def _attempt(self, partition: int) -> str:
        return f"{self._root}.attempt.{partition}"
