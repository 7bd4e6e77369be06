"""A lane follows its partition through lost replies, outages and orders to leave, and commits each message once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.streams.books import Books
from modelyard.runtime.streams.feed import Feed
from modelyard.runtime.streams.lane import Lane
from modelyard.runtime.streams.machine import Phase
from modelyard.runtime.streams.trials import Trials
from modelyard.wire.work import BatchWork
from streams_testing import Echo, MemoryLink, MemoryPartition, message, work


class Counts:
    """Attempts, as the claims of a broker keep them."""

    def __init__(self, before: int = 0) -> None:
        self.kept: tuple[int, int] | None = None
        self.before = before

    async def count(self, position: int) -> int:
        self.kept = (position, self.before + 1)
        return self.before + 1

    async def forget(self) -> None:
        self.kept = None


class Rig:
    def __init__(
        self,
        *,
        dead_letter: str = "out.dead",
        before: int = 0,
        begun: bool = False,
        files: int = 0,
        max_deliver: int = 5,
    ) -> None:
        """files: rows of one, for a sink that takes files."""
        self.there = MemoryPartition()
        batch = BatchWork(rows=files or 4, wait_seconds=0.0)
        self.bench = Echo(work(dead_letter=dead_letter, batch=batch, max_deliver=max_deliver))
        self.books = Books()
        self.counts = Counts(before)
        feed = Feed(bench=self.bench, files=bool(files), most_bytes=2**20)
        trials = Trials(self.counts.count, self.counts.forget)
        self.lane = Lane(0, MemoryLink(self.there), feed, self.books, begun=begun, trials=trials)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[bool]]:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(self.lane.run())
            yield task
            task.cancel()


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not fact():  # noqa: ASYNC110  whatever the fact is made of
            await asyncio.sleep(0.001)


async def test_what_arrives_is_committed_in_order_and_counted() -> None:
    rig = Rig()
    async with rig.running():
        rig.there.publish(*(message(each) for each in range(1, 11)))
        await until(lambda: len(rig.there.log) == 10)
        rig.there.publish(message(11))
        await until(lambda: len(rig.there.log) == 11)
    assert rig.there.positions() == list(range(1, 12))
    assert rig.books.records == 11
    assert rig.there.offset is not None
    assert rig.there.offset.position == 11


@pytest.mark.parametrize("fault", ["lost there", "lost back", "busy"])
async def test_a_commit_whose_end_is_not_known_is_settled_by_the_offset(fault: str) -> None:
    rig = Rig()
    rig.there.faults.extend([fault, "", fault, fault])
    async with rig.running():
        rig.there.publish(*(message(each) for each in range(1, 31)))
        await until(lambda: len(rig.there.log) >= 30)
    assert rig.there.positions() == list(range(1, 31))


async def test_somebody_elses_commit_makes_it_read_again_from_there() -> None:
    rig = Rig()
    rig.there.publish(*(message(each) for each in range(1, 9)))
    taken = False

    def interfere() -> None:
        nonlocal taken
        offset = rig.there.offset
        if not taken and offset is not None:
            taken = True
            rig.there.offset = type(offset)(position=3, fence=offset.fence + 1)

    rig.bench.during = interfere
    async with rig.running():
        await until(lambda: 8 in rig.there.positions())
    assert rig.there.positions() == [4, 5, 6, 7, 8]


async def test_an_outage_is_told_and_ends_by_itself() -> None:
    rig = Rig()
    rig.there.publish(message(1))
    async with rig.running():
        await until(lambda: rig.there.positions() == [1])
        rig.there.away = True
        rig.there.arrived.set()
        await until(lambda: rig.lane.state.problem is not None)
        assert rig.lane.state.problem is not None
        assert rig.lane.state.problem.reason is Reason.BROKER_UNREACHABLE
        rig.there.away = False
        rig.there.publish(message(2))
        await until(lambda: rig.there.positions() == [1, 2])
        await until(lambda: rig.lane.state.problem is None)


async def test_asked_to_leave_it_finishes_its_commit_and_is_given_back() -> None:
    rig = Rig()
    async with rig.running() as task:
        rig.there.publish(*(message(each) for each in range(1, 41)))
        await until(lambda: len(rig.there.log) > 0)
        rig.lane.leave()
        assert await task is True
    assert rig.lane.state.phase is Phase.AWAY
    done = rig.there.positions()
    assert done == list(range(1, len(done) + 1))


async def test_a_lost_partition_is_not_given_back() -> None:
    rig = Rig()
    async with rig.running() as task:
        await until(lambda: rig.lane.state.phase is Phase.FOLLOWING)
        rig.lane.lose()
        assert await task is False


async def test_a_lost_offset_stops_the_partition_and_nothing_is_scored_twice() -> None:
    rig = Rig(begun=True)
    rig.there.publish(message(1))
    async with rig.running() as task:
        await until(lambda: rig.lane.state.problem is not None)
        assert rig.lane.state.problem is not None
        assert rig.lane.state.problem.reason is Reason.OFFSET_LOST
        assert rig.there.log == []
        rig.lane.leave()
        assert await task is True


async def test_bad_records_are_committed_as_dead_letters_with_the_good_ones() -> None:
    rig = Rig()
    rig.there.publish(message(1), message(2, b"bad"), message(3, b"list"))
    async with rig.running():
        await until(lambda: len(rig.there.log) == 4)
    assert [(each.position, each.dead) for each in rig.there.log] == [(1, False), (2, True), (3, False), (3, True)]
    assert (rig.books.records, rig.books.dead_letters) == (4, 2)


async def test_without_dead_letters_what_comes_before_a_bad_record_is_done_and_the_record_is_told() -> None:
    rig = Rig(dead_letter="")
    rig.there.publish(message(1), message(2), message(3, b"bad"), message(4))
    async with rig.running():
        await until(lambda: rig.lane.state.problem is not None)
        assert rig.lane.state.problem is not None
        assert rig.lane.state.problem.reason is Reason.RECORD_FAILED
        assert "message 3 of in cannot be scored: WrongType: x" in rig.lane.state.problem.message
    assert rig.there.positions() == [1, 2]


async def test_after_two_deaths_messages_go_one_by_one_and_with_care() -> None:
    rig = Rig(before=2)
    rig.there.publish(*(message(each) for each in range(1, 8)))
    async with rig.running():
        await until(lambda: len(rig.there.log) == 7)
    assert rig.bench.calls[:4] == [([each], True) for each in range(1, 5)]
    assert rig.bench.calls[4:] == [([5, 6, 7], False)]
    assert rig.there.positions() == list(range(1, 8))


async def test_a_message_that_ended_too_many_runners_is_put_aside_and_the_rest_goes_on() -> None:
    rig = Rig(before=5)
    rig.there.publish(*(message(each) for each in range(1, 7)))
    async with rig.running():
        await until(lambda: len(rig.there.log) == 6)
    assert [each.position for each in rig.there.log if each.dead] == [1]
    assert rig.there.positions() == list(range(1, 7))


async def test_only_a_death_before_the_first_commit_leaves_a_count() -> None:
    rig = Rig()
    rig.there.publish(message(1))
    seen: list[tuple[int, int] | None] = []
    rig.bench.during = lambda: seen.append(rig.counts.kept)
    async with rig.running():
        await until(lambda: len(rig.there.log) == 1)
        await until(lambda: rig.counts.kept is None)
    assert seen == [(1, 1)]


async def test_no_more_is_read_than_is_in_hand() -> None:
    rig = Rig()
    rig.there.faults.extend(["busy"] * 200)
    async with rig.running():
        rig.there.publish(*(message(each) for each in range(1, 1001)))
        await until(lambda: len(rig.there.faults) < 190)
        assert rig.lane.in_hand <= 3 * 4


@pytest.mark.parametrize(("before", "max_deliver"), [(2, 5), (4, 5), (1, 2), (0, 1)])
async def test_before_a_message_is_tried_alone_all_before_it_are_committed(before: int, max_deliver: int) -> None:
    """Else the one that ends the runner would take them along, and they would be given up in its place."""
    rig = Rig(before=before, max_deliver=max_deliver)
    seen: list[tuple[list[int], bool, int]] = []
    rig.bench.during = lambda: seen.append((*rig.bench.calls[-1], len(rig.there.log)))
    rig.there.publish(*(message(each) for each in range(1, 5)))
    async with rig.running():
        await until(lambda: len(rig.there.log) == 4)
    assert seen == [([each], True, each - 1) for each in range(1, 5)]


@pytest.mark.parametrize(("before", "sizes"), [(2, [200] * 50), (3, [4] * 50), (4, [1] * 4), (5, [1] * 1)])
async def test_into_files_they_are_tried_in_smaller_groups_with_each_attempt(before: int, sizes: list[int]) -> None:
    """So that one message that ends runners does not leave as many files as a file has records."""
    rig = Rig(before=before, files=10_000)
    rig.there.publish(*(message(each) for each in range(1, 20_001)))
    async with rig.running():
        await until(lambda: any(not careful for _, careful in rig.bench.calls))
    given_up = before == 5
    careful = [positions for positions, careful in rig.bench.calls if careful]
    assert [len(each) for each in careful] == sizes
    assert [position for each in careful for position in each] == list(range(1 + given_up, sum(sizes) + 1 + given_up))
