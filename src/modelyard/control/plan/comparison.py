"""What replicas that get copies of requests say about their answers, within the bounds of a status: reports are not
trusted, since they come from where models run."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from modelyard.api.service import MirrorResult, ModelServiceStatus
from modelyard.control.ir.observed import Load, Observed
from modelyard.control.ir.route import Route
from modelyard.wire import report as reports
from modelyard.wire.report import ShadowReport

_MOST = 2**53
"""JSON numbers are exact up to here."""
_ABOUT = 0.1
_LOOK_SECONDS = 15.0


class Pair(NamedTuple):
    """Loads of the unit that gets copies, and of the one that serves most; None of one that nobody called lately."""

    shadow: Load | None = None
    serving: Load | None = None


_NONE = Pair()


def told(
    observed: Observed, unit: str, loads: Pair = _NONE, before: MirrorResult | None = None
) -> dict[str, Any] | None:
    """`status.traffic[].mirror` of a unit; None while nothing was to be compared and nothing is known of how long it
    takes. before: what is stored."""
    members = (member for each in observed.units if each.unit.name == unit for member in each.members)
    served = (member.report.serve for member in members if member.report)
    found = [_plausible(each.shadow) for each in served if each and each.shadow]
    latencies = _latencies(loads, before or MirrorResult())
    if not found and "latencyMilliseconds" not in latencies:
        return None
    whole = _plausible(reports.together(found))
    counted = {
        "compared": whole.compared,
        "different": whole.different,
        "noisy": whole.noisy,
        "shadowFailed": whole.shadow_failed,
        "servingFailed": whole.serving_failed,
        "bothFailed": whole.both_failed,
        "skipped": whole.skipped,
        "largestDifference": _text(whole.largest_difference),
        "largestRelativeDifference": _text(whole.largest_relative_difference),
        "largestNoise": _text(whole.largest_noise),
        "largestRelativeNoise": _text(whole.largest_relative_noise),
    }
    return counted | latencies


def _latencies(loads: Pair, before: MirrorResult) -> dict[str, int]:
    found = {
        "latencyMilliseconds": _milliseconds(loads.shadow, before.latency_milliseconds),
        "servingLatencyMilliseconds": _milliseconds(loads.serving, before.serving_latency_milliseconds),
    }
    return {name: value for name, value in found.items() if value is not None}


def _milliseconds(load: Load | None, before: int | None) -> int | None:
    """What is stored is kept while it is about right: a median is never quite the same twice."""
    if load is None or load.p50_seconds is None:
        return None
    now = round(1000 * load.p50_seconds)
    return before if before is not None and abs(now - before) <= _ABOUT * before else now


def look_again(route: Route | None, now: float) -> float | None:
    """When: nothing else says that copies take another time by now. route: in force."""
    return now + _LOOK_SECONDS if route and route.mirror else None


def only_numbers_differ(stored: ModelServiceStatus, status: Mapping[str, Any]) -> bool:
    """Whether something is compared, and nothing else is new than what came of that."""
    if not any("mirror" in each for each in status.get("traffic") or ()):
        return False
    before = stored.model_dump(by_alias=True, exclude_none=True, mode="json")
    return _without_numbers(before) == _without_numbers(status)


def _without_numbers(status: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(status)
    # That something is compared, or differs, is news.
    rest["traffic"] = [
        {**each, "mirror": each["mirror"]["different"] > 0 if "mirror" in each else None}
        for each in status.get("traffic") or ()
    ]
    return rest


def _plausible(report: ShadowReport) -> ShadowReport:
    bounded: dict[str, Any] = {name: _bounded(value) for name, value in msgspec.structs.asdict(report).items()}
    return ShadowReport(**bounded)


def _bounded(value: float) -> float:
    if isinstance(value, int):
        return min(max(value, 0), _MOST)
    return max(value, 0.0) if math.isfinite(value) else 0.0


def _text(value: float) -> str:
    """Three digits: what it is about is its magnitude."""
    return f"{value:.3g}"
