"""What a lane calls: one partition between a source and a sink, whatever they are."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.runtime.streams.records import Group, Message, Offset


class Away(RetryLater):
    """Source or sink cannot be used at this moment. reason: a `base.conditions.Reason` for the report."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Torn(RetryLater):
    """What was read is not continuous any more: read again from the committed offset."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The group is visible, and the offset is this."""

    offset: Offset


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was committed: somebody else did, since the offset was read."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether it was committed; the offset tells."""

    message: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Nothing was committed, and the same may work after a pause."""

    seconds: float
    message: str
    reason: Reason = Reason.BROKER_UNREACHABLE


Outcome = Committed | Fenced | Unknown | Busy


class Reading(Protocol):
    """Messages of one partition, in order, without gaps."""

    async def next(self, most: int) -> Sequence[Message]:
        """At least one and at most so many, as soon as there are any. Raises Away and Torn. Cancelling loses none."""
        ...

    async def lag(self) -> int | None:
        """Messages of the partition that were not taken by `next` yet; None if that is not known. Raises Away."""
        ...

    def expired(self) -> int:
        """Messages that left the source before they were read: how many since this was asked last. At most so many,
        where several partitions share a source."""
        ...


class Link(Protocol):
    """Source and sink of one partition. Methods raise Away, and Refused when somebody must change something."""

    async def recover(self) -> Offset | None:
        """The committed offset; None if nothing was ever committed."""
        ...

    async def begin(self) -> Outcome:
        """Resolve where to start and commit that as the first offset."""
        ...

    def read(self, after: Offset) -> AbstractAsyncContextManager[Reading]:
        """What comes after an offset."""
        ...

    async def commit(self, offset: Offset, group: Group, expired: int) -> Outcome:
        """Make a group visible with the offset after it, at once, or nothing of it. offset: the committed one."""
        ...
