"""What replicas that get copies of requests say about their answers, within the bounds of a status: reports are not
trusted, since they come from where models run."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.api.service import ModelServiceStatus
from modelyard.control.ir.observed import Observed
from modelyard.wire import report as reports
from modelyard.wire.report import ShadowReport

_MOST = 2**53
"""JSON numbers are exact up to here."""


def told(observed: Observed, unit: str) -> dict[str, Any] | None:
    """`status.traffic[].mirror` of a unit; None while nothing was to be compared."""
    members = (member for each in observed.units if each.unit.name == unit for member in each.members)
    served = (member.report.serve for member in members if member.report)
    found = [_plausible(each.shadow) for each in served if each and each.shadow]
    if not found:
        return None
    whole = _plausible(reports.together(found))
    return {
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
