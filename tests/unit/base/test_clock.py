import asyncio

import pytest

from modelyard.base.clock import ManualClock, micro_timestamp, seconds_since_epoch, timestamp


async def test_sleepers_wake_in_order_and_only_when_due() -> None:
    clock = ManualClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 5))
        group.create_task(sleeper("soon", 1))
        await asyncio.sleep(0)
        clock.advance(1)
        await asyncio.sleep(0)
        assert woken == ["soon"]
        clock.advance(4)
    assert woken == ["soon", "late"]


def test_a_jump_moves_the_date_and_not_the_elapsed_time() -> None:
    clock = ManualClock(now=1000.0)
    clock.jump(-500)
    assert (clock.now(), clock.monotonic()) == (500.0, 0.0)
    with pytest.raises(ValueError, match="only moves forward"):
        clock.advance(-1)


def test_timestamps_read_back() -> None:
    assert timestamp(1_700_000_000.9) == "2023-11-14T22:13:20Z"
    assert micro_timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert seconds_since_epoch("2023-11-14T22:13:20Z") == 1_700_000_000.0
