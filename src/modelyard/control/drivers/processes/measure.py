"""What processes use: for the bill, and to enforce memory limits where the kernel is not asked to.

Resident memory is cheap to read but counts pages that are shared by many processes in each of them; it bounds the
proportional size (PSS) from above, which is read only for a process tree whose resident memory exceeds the limit.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from modelyard.control.drivers.processes import strays


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Of a process and its descendants. cpu_seconds: cumulative, of those that live and those reaped by them.

    resident_bytes: pages in memory, shared ones in each process. over_bytes: the proportional size where it exceeds
    the limit, else 0.
    """

    processes: tuple[psutil.Process, ...]
    cpu_seconds: float
    resident_bytes: int
    over_bytes: int


def measure(limits: Mapping[int, int]) -> dict[int, Sample]:
    """limits: leader -> bytes of memory, 0 for none. Takes milliseconds and more: run it in a thread."""
    return {leader: _sample(tuple(tree), limits[leader]) for leader, tree in strays.trees(limits).items() if tree}


def _sample(tree: tuple[psutil.Process, ...], limit: int) -> Sample:
    cpu, resident = 0.0, 0
    for process in tree:
        with suppress(psutil.Error), process.oneshot():
            cpu += sum(process.cpu_times()[:4])
            resident += process.memory_info().rss
    proportional = _proportional(tree) if limit and resident > limit else 0
    return Sample(
        processes=tree,
        cpu_seconds=cpu,
        resident_bytes=resident,
        over_bytes=proportional if proportional > limit else 0,
    )


def _proportional(tree: tuple[psutil.Process, ...]) -> int:
    size = 0
    for process in tree:
        with suppress(psutil.Error):
            memory = process.memory_full_info()
            size += getattr(memory, "pss", memory.uss)
    return size
