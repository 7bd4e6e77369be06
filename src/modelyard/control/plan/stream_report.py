"""What the runners of a stream say together, within the bounds of a status: reports are not trusted."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from modelyard.base.clock import micro_timestamp
from modelyard.control.ir.observed import Observed, ObservedReplica, ReplicaState
from modelyard.wire.report import Failure, PartitionReport, StreamReport

_MOST = 2**53
"""JSON numbers are exact up to here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One runner and its report. unit: that it belongs to; since: when its process started. leaves: it was asked to."""

    runner: str
    unit: str
    since: str
    ready: bool
    leaves: bool
    report: StreamReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """A partition and who scores it."""

    partition: PartitionReport
    told: Told


def reports(observed: Observed, partitions: int) -> tuple[Told, ...]:
    """All reports of runners that run, by name."""
    members = ((each.unit.name, member) for each in observed.units for member in each.members)
    found = (_told(unit, member, partitions) for unit, member in members)
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.runner))


def _told(unit: str, member: ObservedReplica, partitions: int) -> Told | None:
    report = member.report.stream if member.report else None
    if report is None:
        return None
    return Told(
        runner=member.name,
        unit=unit,
        since=micro_timestamp(member.started_at),
        ready=member.state is ReplicaState.READY,
        leaves=member.state is ReplicaState.DRAINING,
        report=_plausible(report, partitions),
    )


def _plausible(report: StreamReport, partitions: int) -> StreamReport:
    """The same report where it is one that a runner writes: numbers are cut to what the schema of the status holds,
    and partitions that the stream has not got are left out.
    """
    held = {each.number: each for each in report.partitions if 0 <= each.number < partitions}
    latency = report.latency_seconds
    return StreamReport(
        ready=report.ready,
        connected=report.connected,
        partitions=tuple(
            PartitionReport(number=number, committed=_optional(each.committed), lag=_optional(each.lag))
            for number, each in sorted(held.items())
        ),
        records=_whole(report.records),
        dead_letters=_whole(report.dead_letters),
        expired=_whole(report.expired),
        records_per_second=float(_whole(report.records_per_second)),
        latency_seconds=None if latency is None or not math.isfinite(latency) else min(max(latency, 0.0), float(_MOST)),
        problem=report.problem,
    )


def holdings(told: Iterable[Told]) -> dict[int, Holding]:
    """Who scores each partition: of several that say so, while it moves, the one that is furthest."""
    found: dict[int, Holding] = {}
    for each in told:
        for partition in each.report.partitions:
            other = found.get(partition.number)
            if other is None or _rank(partition, each) > _rank(other.partition, other.told):
                found[partition.number] = Holding(partition=partition, told=each)
    return found


def _rank(partition: PartitionReport, told: Told) -> tuple[int, bool]:
    return -1 if partition.committed is None else partition.committed, told.ready


def disjoint(told: Iterable[Told]) -> bool:
    """Whether no partition is told by two: then sums count nothing twice."""
    numbers = [partition.number for each in told for partition in each.report.partitions]
    return len(numbers) == len(set(numbers))


def problem(told: Iterable[Told]) -> tuple[Told, Failure] | None:
    """What keeps a runner from working; of several what somebody must change, then the first by name."""
    found = [(each, each.report.problem) for each in told if each.report.problem is not None and not each.leaves]
    found.sort(key=lambda each: (each[1].retry, each[0].runner))
    return found[0] if found else None


def _optional(value: int | None) -> int | None:
    return None if value is None else _whole(value)


def _whole(value: float) -> int:
    """0 for what is no number, too."""
    return round(min(value, _MOST)) if value > 0 else 0
