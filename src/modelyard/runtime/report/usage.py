"""What a container has used, as the kernel counts it for its control group; or this process, where it has none.

Source: Linux, "Control Group v2" (cpu.stat, memory.current, memory.stat), "CPU Accounting Controller" and "Memory
Resource Controller" of version 1; getrusage(2), proc(5).
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path

from modelyard.wire.report import UsageReport

GROUP = Path("/sys/fs/cgroup")
"""A container sees its own group there."""
_PAGE_BYTES = resource.getpagesize()


class Meter:
    """group: the folder of the control group, which is that of this process alone and of those that it started."""

    def __init__(self, group: Path = GROUP, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._clock = clock
        self._at = clock()
        self._bytes = _memory(group)
        self._byte_seconds = 0.0

    def read(self) -> UsageReport:
        """Until now. Memory is counted as if it had grown evenly since it was read last."""
        at, used = self._clock(), _memory(self._group)
        self._byte_seconds += (at - self._at) * (self._bytes + used) / 2
        self._at, self._bytes = at, used
        return UsageReport(cpu_seconds=_cpu(self._group), memory_byte_seconds=self._byte_seconds)


def _cpu(group: Path) -> float:
    """Seconds, also of processes that have ended."""
    microseconds = _named(group / "cpu.stat", "usage_usec")
    if microseconds is not None:
        return microseconds / 1e6
    nanoseconds = _number(group / "cpuacct" / "cpuacct.usage")
    if nanoseconds is not None:
        return nanoseconds / 1e9
    both = (resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def _memory(group: Path) -> int:
    """Bytes, without pages of files that nobody has used lately: what the kubelet calls the working set."""
    for used, folder, idle in (
        (_number(group / "memory.current"), group, "inactive_file"),
        (_number(group / "memory" / "memory.usage_in_bytes"), group / "memory", "total_inactive_file"),
    ):
        if used is not None:
            return max(0, used - (_named(folder / "memory.stat", idle) or 0))
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _named(path: Path, name: str) -> int | None:
    """Of lines that are a name and a number."""
    try:
        lines = (line.split() for line in path.read_text().splitlines())
        return next((int(words[1]) for words in lines if words[:1] == [name]), None)
    except (OSError, ValueError, IndexError):
        return None
