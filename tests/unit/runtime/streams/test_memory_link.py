"""The twin in memory, on which lanes are tested, is as the real links."""

from collections.abc import Sequence

import pytest

from link_suite import LinkSuite
from modelyard.runtime.streams.records import Group, Message, Outgoing
from streams_testing import MemoryLink, MemoryPartition, message


class MemoryRig:
    def __init__(self) -> None:
        self.there = MemoryPartition()

    async def publish(self, *payloads: bytes) -> None:
        last = len(self.there.source)
        self.there.publish(*(message(last + number, each) for number, each in enumerate(payloads, 1)))

    async def link(self) -> MemoryLink:
        return MemoryLink(self.there)

    def group(self, messages: Sequence[Message]) -> Group:
        outgoing = tuple(
            Outgoing(position=each.position, payload=each.payload, dead=each.payload == b"bad") for each in messages
        )
        bad = sum(each.dead for each in outgoing)
        return Group(messages=tuple(messages), outgoing=outgoing, records=len(messages), dead_letters=bad)

    async def committed(self) -> list[tuple[int, bool]]:
        return [(each.position, each.dead) for each in self.there.log]


@pytest.fixture
def rig() -> MemoryRig:
    return MemoryRig()


class TestMemoryLink(LinkSuite):
    """All of it."""
