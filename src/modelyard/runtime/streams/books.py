"""What a runner has done lately: for its report and its metrics. Times are arguments."""

import statistics
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from modelyard.runtime.streams.records import Group, Offset

BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WINDOW_SECONDS = 10.0
_LATELY = 512


@dataclass(slots=True)
class Partition:
    """One that is held. offset: as far as it is known; lag: messages that wait, as last asked."""

    number: int
    offset: Offset | None = None
    lag: int | None = None


@dataclass(slots=True)
class Books:
    """records, dead_letters, expired, groups: committed by this process. latencies: seconds between a message's
    arrival and its commit, counted in buckets up to BUCKETS_SECONDS and above."""

    records: int = 0
    dead_letters: int = 0
    expired: int = 0
    groups: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_SECONDS) + 1))
    latency_sum: float = 0.0
    _points: deque[tuple[float, int]] = field(default_factory=deque)
    _lately: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_LATELY))

    def committed(self, group: Group, expired: int, *, wall: float, now: float) -> None:
        """Note a commit. wall: seconds since 1970; now: monotonic seconds."""
        self.records += group.records
        self.dead_letters += group.dead_letters
        self.expired += expired
        self.groups += 1
        for each in group.messages:
            self._measure(max(0.0, wall - each.at))
        self._lately.append((now, max(0.0, wall - group.messages[0].at)))
        self._points.append((now, self.records))

    def _measure(self, seconds: float) -> None:
        self.buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.latency_sum += seconds

    def pace(self, now: float) -> float:
        """Records per second over the last seconds."""
        while self._points and now - self._points[0][0] > _WINDOW_SECONDS:
            self._points.popleft()
        if len(self._points) < 2:
            return 0.0
        (began, before), (_, after) = self._points[0], self._points[-1]
        return (after - before) / max(now - began, 1e-3)

    def latency(self, now: float) -> float | None:
        """The median of the oldest messages of the commits of the last seconds; None without any."""
        found = [seconds for at, seconds in self._lately if now - at <= _WINDOW_SECONDS]
        return statistics.median(found) if found else None


def metrics(books: Books, held: Iterable[Partition], stream: str) -> str:
    """In the text format of Prometheus. stream: `<namespace>.<name>`, a label."""
    label = f'stream="{stream}"'
    lines = []
    for name, what, value in (
        ("records", "Records committed, with dead letters.", books.records),
        ("dead_letters", "Records that could not be scored.", books.dead_letters),
        ("expired", "Records that left the source before they were read.", books.expired),
        ("commits", "Commits.", books.groups),
    ):
        full = f"modelyard_stream_{name}_total"
        lines += [f"# HELP {full} {what}", f"# TYPE {full} counter", f"{full}{{{label}}} {value}"]
    lines += ["# HELP modelyard_stream_lag Messages that wait.", "# TYPE modelyard_stream_lag gauge"]
    lines += [
        f'modelyard_stream_lag{{{label},partition="{each.number}"}} {each.lag}' for each in held if each.lag is not None
    ]
    full = "modelyard_stream_latency_seconds"
    lines += [f"# HELP {full} From a message's arrival at the source to its commit.", f"# TYPE {full} histogram"]
    total = 0
    for bound, count in zip([*map(str, BUCKETS_SECONDS), "+Inf"], books.buckets, strict=True):
        total += count
        lines.append(f'{full}_bucket{{{label},le="{bound}"}} {total}')
    lines += [f"{full}_sum{{{label}}} {books.latency_sum:.6f}", f"{full}_count{{{label}}} {total}"]
    return "\n".join(lines) + "\n"
