"""What a program tells about itself, in the file PROGRESS_FILE.

One JSON object, or one on each line of which the last counts: `{"progressPercentage": 40, "estimatedRemainingSeconds":
90, "metrics": {"loss": 0.25}}`, every member optional. The program is not trusted: what cannot be read is left out.
"""

import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.wire.report import JobReport, Metric

_MOST_BYTES = 64 * 2**10
_MOST_METRICS = 16
_LONGEST_NAME = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """percent: 0 to 100; None: not told."""

    percent: int | None = None
    eta_seconds: float | None = None
    metrics: tuple[Metric, ...] = ()

    def report(self, run: int = 0) -> JobReport:
        """While the program runs. run: the number at its output, 0 without one."""
        return JobReport(
            run=run, percent=self.percent, eta_seconds=self.eta_seconds, metrics=self.metrics, note="running"
        )


def read(path: Path) -> Told:
    """The last thing that was told; nothing if there is none, or none that can be read."""
    text = (content(path, _MOST_BYTES) or b"").decode(errors="replace")
    for candidate in (text, *reversed(text.splitlines())):
        found = _object(candidate)
        if found is not None:
            return _told(found)
    return Told()


def content(path: Path, most_bytes: int) -> bytes | None:
    """The end of a regular file, None where there is none: a link leads elsewhere, and a FIFO keeps its reader."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return file.read(most_bytes)
    except OSError:
        return None


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _told(found: dict[str, Any]) -> Told:
    percent, eta = _number(found.get("progressPercentage")), _number(found.get("estimatedRemainingSeconds"))
    metrics = found.get("metrics")
    numbers = {str(name): _number(value) for name, value in metrics.items()} if isinstance(metrics, dict) else {}
    known = [(name, value) for name, value in numbers.items() if value is not None and len(name) <= _LONGEST_NAME]
    return Told(
        percent=None if percent is None else int(min(max(percent, 0.0), 100.0)),
        eta_seconds=None if eta is None or eta < 0 else eta,
        metrics=tuple(Metric(name=name, value=value) for name, value in known[:_MOST_METRICS]),
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
