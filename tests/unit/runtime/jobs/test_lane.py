"""Records are read while others are scored, a few at a time, whatever the size of the file."""

import asyncio
from collections.abc import Iterator

import pytest

from modelyard.runtime.jobs import lane

MANY = 100


class Source:
    """Numbers from 0 on. given: how many were read; enough: set when they are as many as that."""

    def __init__(self, enough: int) -> None:
        self.given = 0
        self._enough = enough
        self._loop = asyncio.get_running_loop()
        self.enough = asyncio.Event()

    def read(self) -> Iterator[int]:
        for number in range(MANY):
            self.given += 1
            if self.given == self._enough:
                self._loop.call_soon_threadsafe(self.enough.set)
            yield number


async def test_while_one_batch_is_scored_a_few_more_are_read_and_no_more() -> None:
    most = 1 + lane._AHEAD + 1
    source = Source(most)
    async with lane._ahead(source.read) as items:
        taken = [await anext(items)]
        await asyncio.wait_for(source.enough.wait(), 10)
        async for item in items:
            taken.append(item)
            assert source.given <= len(taken) + lane._AHEAD + 1
    assert taken == list(range(MANY))


async def test_who_stops_taking_ends_the_reading() -> None:
    source = Source(MANY)
    async with lane._ahead(source.read) as items:
        assert await anext(items) == 0
    assert source.given < MANY


async def test_what_reading_ends_with_reaches_whoever_scores() -> None:
    def damaged() -> Iterator[int]:
        yield 0
        raise ValueError("row group 1 cannot be read")

    async def score() -> None:
        async with lane._ahead(damaged) as items:
            assert not [item async for item in items], "it is never whole"

    with pytest.raises(ValueError, match="row group 1"):
        await score()
