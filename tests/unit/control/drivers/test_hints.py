import asyncio

from modelyard.control.drivers.hints import Hints
from modelyard.testing.driver_rig import IRIS, MODEL, ROSE


async def test_owners_come_once_in_their_order() -> None:
    hints = Hints()
    for key in (IRIS, ROSE, IRIS, MODEL, IRIS):
        hints.add(key)
    stream = hints.stream()
    assert [await anext(stream) for _ in range(3)] == [IRIS, ROSE, MODEL]


async def test_an_owner_that_was_taken_can_come_again_and_is_waited_for() -> None:
    hints = Hints()
    hints.add(IRIS)
    stream = hints.stream()
    assert await anext(stream) == IRIS
    asyncio.get_running_loop().call_soon(hints.add, IRIS)
    assert await anext(stream) == IRIS
