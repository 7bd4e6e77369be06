"""Looks at running processes every second: counts what they use, and ends those above their memory limit."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from modelyard.base import quantities
from modelyard.base.clock import Clock
from modelyard.base.conditions import Reason
from modelyard.control.drivers.processes.measure import Sample, measure
from modelyard.control.drivers.processes.process import Process

logger = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0
_USAGE_EVERY = 5
"""Periods between looks at processes without a memory limit."""


class Subject(Protocol):
    """A replica or task. memory_limit: bytes, 0 for none."""

    process: Process | None

    @property
    def memory_limit(self) -> int: ...

    def end(self, reason: Reason, message: str) -> None:
        """End it as troubled."""
        ...

    def used(self, byte_seconds: float) -> None:
        """Add to what it has used."""
        ...


async def watch(subjects: Callable[[], Iterable[Subject]], clock: Clock) -> None:
    """Until cancelled."""
    period = 0
    while True:
        await asyncio.sleep(_PERIOD_SECONDS)
        period += 1
        due = period % _USAGE_EVERY == 0
        looked_at = {
            each.process.pid: (each, each.process) for each in subjects() if each.process and (due or each.memory_limit)
        }
        if not looked_at:
            continue
        try:
            samples = await asyncio.to_thread(measure, {pid: each.memory_limit for pid, (each, _) in looked_at.items()})
        except Exception:
            logger.exception("what processes use could not be measured")
            continue
        now = clock.monotonic()
        for pid, sample in samples.items():
            subject, process = looked_at[pid]
            if subject.process is process and not process.has_ended:
                _tell(subject, process, sample, now)


def _tell(subject: Subject, process: Process, sample: Sample, now: float) -> None:
    process.known = sample.processes
    process.cpu_seconds = max(process.cpu_seconds, sample.cpu_seconds)
    subject.used(sample.resident_bytes * (now - process.counted_at))
    process.counted_at = now
    if sample.over_bytes:
        size, limit = quantities.bytes_text(sample.over_bytes), quantities.bytes_text(subject.memory_limit)
        subject.end(
            Reason.CRASHED, f"used {size} of {limit} of memory and was ended; raise spec.resources.limits.memory"
        )
