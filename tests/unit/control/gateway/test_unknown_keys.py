import asyncio
import contextlib

from modelyard.base.clock import ManualClock
from modelyard.base.errors import RetryLater
from modelyard.control.gateway import unknown_keys
from modelyard.control.render.xds_access import UNKNOWN_KEYS


async def test_news_is_told_once_for_many_tokens_and_again_for_later_ones() -> None:
    clock, told, asked = ManualClock(), [], []
    answers = iter(["", "", f"{UNKNOWN_KEYS}: 900\n", f"{UNKNOWN_KEYS}: 900\n", None, f"{UNKNOWN_KEYS}: 901\n", "x"])

    async def admin(method: str, path: str) -> str:
        asked.append(f"{method} {path}")
        answer = next(answers)
        if answer is None:
            raise RetryLater("it is being started")
        return answer

    task = asyncio.create_task(unknown_keys.watch(admin, clock, lambda: told.append(len(asked)), lambda: True))
    for _ in range(6):
        await asyncio.sleep(0.01)
        clock.advance(unknown_keys.PAUSE_SECONDS)
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert told == [3, 6]
    assert set(asked) == {"GET /stats?usedonly&filter=http%2Egateway%2Erbac%2Eunknown_key%2Eshadow_denied"}


async def test_without_an_issuer_from_outside_envoy_is_not_asked() -> None:
    clock = ManualClock()

    async def admin(_method: str, _path: str) -> str:
        raise AssertionError("it was asked")

    task = asyncio.create_task(unknown_keys.watch(admin, clock, lambda: None, lambda: False))
    for _ in range(3):
        await asyncio.sleep(0.01)
        clock.advance(unknown_keys.PAUSE_SECONDS)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
