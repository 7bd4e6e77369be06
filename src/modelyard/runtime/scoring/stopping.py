"""Work that is asked to stop, and what it ended with."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from modelyard.runtime.scoring.refused import Refused

T = TypeVar("T")


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> tuple[bool, T | None]:
    """(False, what the work returns), or (True, None) when it was stopped before its end."""
    try:
        async with asyncio.TaskGroup() as group:
            working, stopping = group.create_task(work), group.create_task(stop.wait())
            await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopped = not working.done()
            (working if stopped else stopping).cancel()
    except BaseExceptionGroup as errors:
        raise telling(errors) from errors
    return stopped, None if stopped else working.result()


def telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ends the job for good comes before what may heal."""
    flat = [each for error in group.exceptions for each in _leaves(error)]
    return next((each for each in flat if isinstance(each, Refused)), flat[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
