import asyncio
import io
from typing import Any

import pytest
from rich.console import Console

from modelyard.cli import job_view
from modelyard.cli.job_view import Bars, Lines

Object = dict[str, Any]
STARTED = "2027-01-15T08:00:00Z"


def job(name: str, reason: str, **status: Any) -> Object:
    conditions = [{"type": "Complete", "status": "False", "reason": reason, "message": "as said"}]
    return {"kind": "ModelJob", "metadata": {"name": name}, "status": {"conditions": conditions, **status}}


def drawn(bars: Bars) -> list[str]:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(bars.picture())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_bar_for_each_job_with_its_numbers_below() -> None:
    bars = Bars(Console(file=io.StringIO()), lambda: 1_800_000_012.0)
    score = {"rows": 370, "totalRows": 1000, "progressPercentage": 37, "active": 2, "startTime": STARTED}
    bars.show(job("score", "Running", **score, rowsPerSecond=21, estimatedRemainingSeconds=30, errorRows=2))
    bars.show(job("a" * 63, "ModelNotFound"))
    first, numbers, second, cause = drawn(bars)
    assert first.split()[0] == "score"
    assert first.split()[-4:] == ["37%", "Running", "12", "s"]
    assert numbers.strip() == "370 of 1,000 rows, 21 rows/s, 30 s left, 2 errors, 2 runners"
    assert second.split()[0].startswith("aaaa")
    assert "Waiting" in second
    assert cause.strip() == "ModelNotFound: as said"


async def test_numbers_are_lines_at_most_every_second_and_states_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_view, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(job_view, "_LINE_SECONDS", 3600.0)
    said: list[str] = []
    two = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 2:
            two.set()

    follower = Lines(say).follower("modeljob/score", job("score", ""))
    saying = asyncio.create_task(follower.keep_saying())
    follower.told(job("score", "Running", progressPercentage=1))
    follower.told(job("score", "Running", progressPercentage=2))
    async with asyncio.timeout(5):
        await two.wait()
    follower.told(job("score", "Running", progressPercentage=3))
    for _ in range(10):
        await asyncio.sleep(0)
    follower.told(job("score", "Unschedulable"))
    saying.cancel()
    assert [line.split("  ", 1)[1] for line in said] == ["1%", "2%", "Waiting  Unschedulable: as said"]
