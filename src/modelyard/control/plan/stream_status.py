"""What is known about a stream: its partitions, and sums that never go back."""

from collections.abc import Iterable, Mapping
from typing import Any

from modelyard.api.stream import MAX_PARTITIONS, ModelStream, ModelStreamStatus
from modelyard.base.clock import micro_timestamp, seconds_since_epoch
from modelyard.control.ir import names
from modelyard.control.ir.observed import Observed, ReplicaState
from modelyard.control.plan import stream_work
from modelyard.control.plan.rollout import Rollout
from modelyard.control.plan.stream_report import Holding, Told, disjoint, holdings

_SUMS = {"records": "records", "deadLetters": "dead_letters", "expired": "expired"}
"""In the status, and in reports and models."""
_NUMBERS = frozenset({*_SUMS, "lag", "recordsPerSecond", "latencyMilliseconds", "counted"})
_MOST_COUNTED = 4 * MAX_PARTITIONS
_MOVING_SECONDS = 5.0
"""From one runner to another it takes about a second."""
_MOST = 2**53
"""JSON numbers are exact up to here."""


def body(
    stream: ModelStream, rollout: Rollout, observed: Observed, told: tuple[Told, ...], now: float
) -> dict[str, Any]:
    """The stored status brought up to date, without conditions."""
    stored = stream.status
    ready, digest = stored.latest_ready_revision, stored.digest
    if rollout.target and rollout.traffic is rollout.target:
        ready, digest = rollout.target.name, rollout.target.inputs["model"]["digest"]
    members = [member for each in observed.units for member in each.members]
    partitions = _partitions(stored, holdings(told), micro_timestamp(now))
    return {
        "latestCreatedRevision": rollout.target.name if rollout.target else None,
        "latestReadyRevision": ready,
        "digest": digest,
        "delivery": stream_work.delivery(stream.spec),
        "replicas": sum(member.state is not ReplicaState.DRAINING for member in members),
        "readyReplicas": sum(member.state is ReplicaState.READY for member in members),
        "selector": names.stream_selector(stream.metadata.name),
        "partitions": partitions or None,
        "lag": _lag(partitions, stream.spec.partitions),
        **_sums(stream, observed, told),
        **_pace(told),
    }


def begun(body: Mapping[str, Any]) -> tuple[int, ...]:
    """Partitions that have committed something: a missing offset is a loss from then on."""
    return tuple(each["number"] for each in body.get("partitions") or () if "committed" in each)


def only_numbers_differ(stored: ModelStreamStatus, status: Mapping[str, Any]) -> bool:
    """Whether nothing else is new: no state, no reason, no runner, and no partition that has begun."""
    before = stored.model_dump(by_alias=True, exclude_none=True, mode="json")
    return _without_numbers(before) == _without_numbers(status)


def _without_numbers(status: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in status.items() if name not in _NUMBERS}
    rest["partitions"] = [
        (each["number"], each.get("runner"), "committed" in each) for each in status.get("partitions") or ()
    ]
    rest["conditions"] = [
        {name: value for name, value in each.items() if name != "message"} for each in status.get("conditions") or ()
    ]
    return rest


def moving(stored: ModelStreamStatus, body: Mapping[str, Any], now: float) -> dict[int, float]:
    """Partitions between two runners of a stream that was Ready, and until when that is nothing to worry about."""
    ready = any(each.type == "Ready" and each.status == "True" for each in stored.conditions or ())
    free = {
        each["number"]: seconds_since_epoch(each["freeSince"]) + _MOVING_SECONDS
        for each in body.get("partitions") or ()
        if "freeSince" in each and ready
    }
    return {number: due for number, due in free.items() if now < due}


def _partitions(stored: ModelStreamStatus, held: Mapping[int, Holding], now: str) -> list[dict[str, Any]]:
    """What has begun stays for good, and its position never goes back."""
    known = {each.number: each.committed for each in stored.partitions or () if each.committed is not None}
    free = {each.number: now if each.runner else each.free_since for each in stored.partitions or ()}
    found = []
    for number in sorted({*known, *held}):
        holding = held.get(number)
        partition = holding.partition if holding else None
        positions = [known.get(number), partition.committed if partition else None]
        entry = {
            "number": number,
            "committed": max((each for each in positions if each is not None), default=None),
            "lag": partition.lag if partition else None,
            "runner": holding.told.runner if holding else None,
            "freeSince": free.get(number) if not holding else None,
        }
        found.append({name: value for name, value in entry.items() if value is not None})
    return found


def _lag(partitions: Iterable[Mapping[str, Any]], count: int) -> int | None:
    lags = [each["lag"] for each in partitions if "lag" in each]
    return min(sum(lags), _MOST) if len(lags) == count else None


def _pace(told: Iterable[Told]) -> dict[str, Any]:
    found = list(told)
    latencies = [each.report.latency_seconds for each in found if each.report.latency_seconds is not None]
    rate = round(sum(each.report.records_per_second for each in found))
    return {
        "recordsPerSecond": min(rate, _MOST) if found else None,
        "latencyMilliseconds": min(round(1000 * max(latencies)), _MOST) if latencies else None,
    }


def _sums(stream: ModelStream, observed: Observed, told: tuple[Told, ...]) -> dict[str, Any]:
    stored = stream.status
    if stream_work.delivery(stream.spec) == "atLeastOnce":
        return _counted(stored, observed, told)
    # Offsets carry the sums of their partitions. While one moves, none or two may tell of it.
    sure = told if disjoint(told) else ()
    if not sure and stored.records is None:
        return {}
    sums = {name: sum(getattr(each.report, field) for each in sure) for name, field in _SUMS.items()}
    return {name: min(max(sums[name], getattr(stored, field) or 0), _MOST) for name, field in _SUMS.items()}


def _counted(stored: ModelStreamStatus, observed: Observed, told: tuple[Told, ...]) -> dict[str, Any]:
    """Each process counts from its start: what is new since it was last looked at is added."""
    running = {(member.name, micro_timestamp(member.started_at)) for each in observed.units for member in each.members}
    last = {(each.runner, each.since): each for each in stored.counted or () if (each.runner, each.since) in running}
    sums = {name: getattr(stored, field) or 0 for name, field in _SUMS.items()}
    entries = {each: _entry(*each, {n: getattr(seen, f) for n, f in _SUMS.items()}) for each, seen in last.items()}
    for each in told:
        counts = {name: getattr(each.report, field) for name, field in _SUMS.items()}
        before = entries.get((each.runner, each.since), {})
        for name, count in counts.items():
            sums[name] += max(0, count - before.get(name, 0))
        counts = {name: max(count, before.get(name, 0)) for name, count in counts.items()}
        entries[each.runner, each.since] = _entry(each.runner, each.since, counts)
    if not told and stored.records is None:
        return {}
    sums = {name: min(count, _MOST) for name, count in sums.items()}
    return {**sums, "counted": [entries[place] for place in sorted(entries)][:_MOST_COUNTED] or None}


def _entry(runner: str, since: str, counts: Mapping[str, int]) -> dict[str, Any]:
    return {"runner": runner, "since": since, **counts}
