"""What every link keeps to: the real ones, and the twin in memory that the tests of lanes use."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from modelyard.runtime.streams.port import Committed, Fenced, Link, Reading
from modelyard.runtime.streams.records import Group, Message, Offset


class Rig(Protocol):
    """One partition with both its ends, all of a test's own."""

    async def publish(self, *payloads: bytes) -> None: ...

    async def link(self) -> Link:
        """Another one of the same partition."""
        ...

    def group(self, messages: Sequence[Message]) -> Group:
        """What a model could make of them; a payload `bad` is a dead letter."""
        ...

    async def committed(self) -> list[tuple[int, bool]]:
        """(position, whether it is a dead letter) of what a reader of the sink sees, in order."""
        ...


async def take(reading: Reading, count: int) -> list[Message]:
    found: list[Message] = []
    while len(found) < count:
        found += await reading.next(count - len(found))
    return found


async def begun(link: Link) -> Offset:
    assert await link.recover() is None
    outcome = await link.begin()
    assert isinstance(outcome, Committed)
    return outcome.offset


class LinkSuite:
    """fixture `rig`."""

    fences = True
    """False: two runners may do the same work, and both commit it (at least once)."""

    async def test_a_partition_that_never_began_has_no_offset_and_begins_once(self, rig: Rig) -> None:
        first, second = await rig.link(), await rig.link()
        offset = await begun(first)
        outcome = await second.begin()
        assert isinstance(outcome, Fenced) or not self.fences
        again = await second.recover()
        assert again is not None
        assert again.position == offset.position

    async def test_what_is_committed_is_seen_once_and_the_offset_moves(self, rig: Rig) -> None:
        link = await rig.link()
        offset = await begun(link)
        await rig.publish(b"one", b"bad", b"three")
        async with link.read(offset) as reading:
            messages = await take(reading, 3)
            assert [each.payload for each in messages] == [b"one", b"bad", b"three"]
            outcome = await link.commit(offset, rig.group(messages), 0)
            assert isinstance(outcome, Committed)
        assert outcome.offset.position == messages[-1].position
        found = await (await rig.link()).recover()
        assert found is not None
        assert found.position == messages[-1].position
        assert sorted(await rig.committed()) == [(each.position, each.payload == b"bad") for each in messages]

    async def test_reading_goes_on_after_the_offset_and_waits_for_what_comes(self, rig: Rig) -> None:
        link = await rig.link()
        offset = await begun(link)
        await rig.publish(*(f"{number}".encode() for number in range(10)))
        async with link.read(offset) as reading:
            first = await take(reading, 4)
            outcome = await link.commit(offset, rig.group(first), 0)
            assert isinstance(outcome, Committed)
        async with link.read(outcome.offset) as reading:
            rest = await take(reading, 6)
            assert [each.payload for each in rest] == [f"{number}".encode() for number in range(4, 10)]
            assert await reading.lag() == 0
            await rig.publish(b"late")
            assert [each.payload for each in await take(reading, 1)] == [b"late"]

    async def test_what_was_read_and_not_committed_comes_again(self, rig: Rig) -> None:
        link = await rig.link()
        offset = await begun(link)
        await rig.publish(b"a", b"b", b"c")
        async with AsyncExitStack() as stack:
            reading = await stack.enter_async_context(link.read(offset))
            await take(reading, 3)
        async with (await rig.link()).read(offset) as reading:
            assert [each.payload for each in await take(reading, 3)] == [b"a", b"b", b"c"]

    async def test_of_two_runners_with_one_offset_one_commits(self, rig: Rig) -> None:
        if not self.fences:
            return
        first, second = await rig.link(), await rig.link()
        offset = await begun(first)
        assert await second.recover() == offset
        await rig.publish(b"a", b"b", b"c")
        async with first.read(offset) as reading:
            messages = await take(reading, 3)
        assert isinstance(await first.commit(offset, rig.group(messages[:2]), 0), Committed)
        assert isinstance(await second.commit(offset, rig.group(messages), 0), Fenced)
        assert [position for position, _ in await rig.committed()] == [each.position for each in messages[:2]]
        found = await second.recover()
        assert found is not None
        outcome = await second.commit(found, rig.group(messages[2:]), 0)
        assert isinstance(outcome, Committed)
        assert outcome.offset.records == 3
        assert [position for position, _ in await rig.committed()] == [each.position for each in messages]

    async def test_totals_go_on_over_runners(self, rig: Rig) -> None:
        if not self.fences:
            return
        offset = await begun(await rig.link())
        await rig.publish(b"a", b"bad", b"c")
        async with (await rig.link()).read(offset) as reading:
            messages = await take(reading, 3)
        for count, each in enumerate(messages, 1):
            link = await rig.link()
            found = await link.recover()
            assert found is not None
            outcome = await link.commit(found, rig.group([each]), 2)
            assert isinstance(outcome, Committed)
            assert (outcome.offset.records, outcome.offset.expired) == (count, 2 * count)
        found = await (await rig.link()).recover()
        assert found is not None
        assert (found.records, found.dead_letters, found.expired) == (3, 1, 6)
