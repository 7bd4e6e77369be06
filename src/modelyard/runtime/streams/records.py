"""Records on their way from a source to a sink, in no broker's words."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """What the source delivers at once: one record or a list of them.

    position: in the source; grows within a partition, with gaps. headers: of its publisher. at: seconds since 1970 when
    it arrived at the source. delivered: how often it was given to a runner, as far as the source counts that.
    reply: for whoever read it.
    """

    position: int
    subject: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    at: float = 0.0
    delivered: int = 1
    reply: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """A message for the sink. dead: for the dead letters. position: of the message that it is made of."""

    position: int
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    dead: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Offset:
    """What is committed of a partition.

    position: of the last message that is done. fence: what the next commit must name, so that only one of two runners
    succeeds. records, dead_letters, expired: since the partition began (records: with dead letters).
    """

    position: int
    fence: int = 0
    records: int = 0
    dead_letters: int = 0
    expired: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Scored records that are committed together, with the offset.

    messages: what was read, in order. outgoing: what they became, in order, at most two for each; for a sink of files
    only the dead letters, and in tables the scored records, in order. records, dead_letters: how many there are.
    """

    messages: tuple[Message, ...]
    outgoing: tuple[Outgoing, ...]
    records: int
    dead_letters: int = 0
    tables: tuple[pa.Table, ...] = ()

    @property
    def last(self) -> int:
        """The position after which the partition goes on."""
        return self.messages[-1].position
