"""What came of copies of requests, as statuses tell it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from modelyard.api.service import MirrorResult, ModelServiceStatus
from modelyard.control.ir.observed import Load, Observed, ObservedReplica, ObservedUnit, ReplicaState
from modelyard.control.plan.comparison import Pair, only_numbers_differ, told
from modelyard.testing.driver_rig import unit
from modelyard.wire.report import Report, ServeReport, ShadowReport

SHADOW = unit("iris-svc-00002.default")
REPORTS = st.builds(
    ShadowReport,
    **{
        name: st.floats() if name.startswith("largest_") else st.integers(-(2**63), 2**64)
        for name in ShadowReport.__struct_fields__
    },
)


def observed(*reports: ShadowReport | None) -> Observed:
    """Of the replicas of SHADOW, beside another unit that was compared in former times."""
    members = tuple(
        ObservedReplica(
            name=f"r-{number}",
            state=ReplicaState.READY,
            report=Report(serve=ServeReport(ready=True, shadow=each)) if each else None,
        )
        for number, each in enumerate(reports)
    )
    former = ObservedReplica(
        name="old", state=ReplicaState.READY, report=Report(serve=ServeReport(shadow=ShadowReport(compared=999)))
    )
    return Observed(
        units=(
            ObservedUnit(unit=SHADOW, replicas=len(members), members=members),
            ObservedUnit(unit=unit("iris-svc-00001.default"), replicas=1, members=(former,)),
        )
    )


def test_counts_of_replicas_are_added_up_and_of_the_largest_the_largest_counts() -> None:
    one = ShadowReport(compared=3, different=1, skipped=2, largest_difference=0.25, largest_noise=1e-7)
    other = ShadowReport(compared=4, noisy=1, shadow_failed=5, largest_difference=0.125, largest_relative_noise=0.5)
    assert told(observed(one, None, other), SHADOW.name) == {
        "compared": 7,
        "different": 1,
        "noisy": 1,
        "shadowFailed": 5,
        "servingFailed": 0,
        "bothFailed": 0,
        "skipped": 2,
        "largestDifference": "0.25",
        "largestRelativeDifference": "0",
        "largestNoise": "1e-07",
        "largestRelativeNoise": "0.5",
    }


def test_how_long_both_take_is_told_and_stays_while_it_is_about_right() -> None:
    def latencies(shadow: float | None, serving: float | None, **before: int) -> tuple[int | None, int | None]:
        pair = Pair(Load(unit=SHADOW.name, p50_seconds=shadow), Load(unit="other", p50_seconds=serving))
        found = told(observed(ShadowReport(compared=1)), SHADOW.name, pair, MirrorResult(**before))
        assert found is not None
        return found.get("latencyMilliseconds"), found.get("servingLatencyMilliseconds")

    before = {"latency_milliseconds": 100, "serving_latency_milliseconds": 20}
    assert latencies(0.0127, 0.0104) == (13, 10)
    assert latencies(0.108, 0.0185, **before) == (100, 20)
    assert latencies(0.112, 0.017, **before) == (112, 17)
    assert latencies(None, 0.02, **before) == (None, 20)
    assert told(observed(), SHADOW.name, Pair(Load(unit=SHADOW.name, p50_seconds=0.0001))) == {
        **(told(observed(ShadowReport()), SHADOW.name) or {}),
        "latencyMilliseconds": 0,
    }, "copies that are not compared take their time, too"


def test_nothing_is_told_while_nothing_was_compared() -> None:
    assert told(observed(None), SHADOW.name) is None
    assert told(Observed(), SHADOW.name) is None


@given(st.lists(REPORTS, min_size=1, max_size=4))
def test_whatever_replicas_report_the_status_is_valid(reports: list[ShadowReport]) -> None:
    found = told(observed(*reports), SHADOW.name)
    json.dumps(found, allow_nan=False)
    valid = MirrorResult.model_validate(found)
    assert 0 <= valid.compared <= 2**53


def status(**mirror: Any) -> dict[str, Any]:
    return {
        "observedGeneration": 1,
        "readyReplicas": 2,
        "traffic": [
            {"revision": "iris-svc-00001", "percent": 100},
            {"revision": "iris-svc-00002", "percent": 0, "mirrorPercent": 50, **({"mirror": mirror} if mirror else {})},
        ],
        "conditions": [],
    }


def test_numbers_alone_may_be_written_later_and_news_may_not() -> None:
    first = told(observed(ShadowReport(compared=1)), SHADOW.name)
    assert first is not None
    stored = ModelServiceStatus.model_validate(status(**first))
    more = told(observed(ShadowReport(compared=9, skipped=3, largest_difference=0.5)), SHADOW.name)
    differs = told(observed(ShadowReport(compared=9, different=1)), SHADOW.name)
    assert more is not None
    assert differs is not None
    assert only_numbers_differ(stored, status(**first))
    assert only_numbers_differ(stored, status(**more))
    assert not only_numbers_differ(stored, status(**differs))
    assert not only_numbers_differ(stored, status(**more) | {"readyReplicas": 1})
    assert not only_numbers_differ(stored, status())
    assert not only_numbers_differ(ModelServiceStatus.model_validate(status()), status(**first))


def test_reports_of_what_streams_do_are_none() -> None:
    given = observed(ShadowReport(compared=1))
    members = tuple(replace(each, report=Report(serve=ServeReport())) for each in given.units[0].members)
    assert told(Observed(units=(replace(given.units[0], members=members),)), SHADOW.name) is None
