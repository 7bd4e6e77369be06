"""Envoy's statistics become loads of units."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.clock import ManualClock
from modelyard.base.errors import RetryLater
from modelyard.control.gateway import stats
from modelyard.control.gateway.stats import Count, Loads
from modelyard.control.ir.observed import Load

UNIT = "iris-svc-00001.default"


def answer(values: dict[str, Any], quantiles: dict[str, tuple[Any, Any]] | None = None) -> str:
    """As Envoy gives it."""
    found: list[Any] = [{"name": name, "value": value} for name, value in values.items()]
    computed = [
        {"name": name, "values": [{"cumulative": 9, "interval": each} for each in (0, *pair)]}
        for name, pair in (quantiles or {}).items()
    ]
    histograms = {"supported_quantiles": [0.0, 50.0, 99.0], "computed_quantiles": computed}
    return json.dumps({"stats": [*found, {"histograms": histograms}]})


def at(field: str, unit: str = UNIT) -> str:
    return f"cluster.{unit}.upstream_{field}"


def test_counters_and_quantiles_are_found_by_unit() -> None:
    values = {
        at("rq_active"): 3,
        at("rq_2xx"): 10,
        at("rq_3xx"): 1,
        at("rq_4xx"): 2,
        at("rq_5xx"): 4,
        at("rq_retry"): 5,
        at("rq_timeout"): 6,
        at("cx_connect_fail"): 7,
        at("rq_2xx", "b-svc-00002.shop"): 1,
        "http.gateway.downstream_rq_active": 8,
    }
    assert stats.counts(answer(values, {at("rq_time"): (12, 250.5)})) == {
        UNIT: Count(
            in_flight=3,
            answered=11,
            refused=2,
            failed=4,
            retries=5,
            timeouts=6,
            connect_failures=7,
            p50_seconds=0.012,
            p99_seconds=0.2505,
        ),
        "b-svc-00002.shop": Count(answered=1),
    }


@pytest.mark.parametrize("pair", [(None, None), (-1, 5), (5,), ()])
def test_an_interval_without_requests_has_no_latency(pair: Any) -> None:
    found = stats.counts(answer({}, {at("rq_time"): pair}))
    assert found.get(UNIT, Count()) == Count(p99_seconds=0.005 if pair == (-1, 5) else None)


@pytest.mark.parametrize("value", [-1, 2**63, 1.5, "many", None, True])
def test_what_is_no_count_is_left_out(value: Any) -> None:
    assert stats.counts(answer({at("rq_2xx"): value, at("rq_5xx"): 1}))[UNIT] == Count(failed=1)


_NAMES = st.one_of(
    st.text(max_size=30),
    st.builds(lambda unit, field: at(field, unit), st.text(max_size=8), st.sampled_from(["rq_2xx", "rq_time", "x"])),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_STAT = st.fixed_dictionaries(
    {},
    optional={
        "name": _NAMES,
        "value": _JSON,
        "histograms": st.fixed_dictionaries(
            {},
            optional={
                "supported_quantiles": st.just([50, 99]) | _JSON,
                "computed_quantiles": st.lists(
                    st.fixed_dictionaries(
                        {"name": _NAMES, "values": st.lists(st.fixed_dictionaries({"interval": _JSON}), max_size=3)}
                    ),
                    max_size=3,
                )
                | _JSON,
            },
        ),
    },
)


@given(st.one_of(st.binary(max_size=60), st.fixed_dictionaries({"stats": st.lists(_STAT, max_size=5)}).map(json.dumps)))
def test_whatever_comes_is_counts_or_a_value_error(text: str | bytes) -> None:
    try:
        found = stats.counts(text)
    except ValueError:
        return
    for each in found.values():
        assert all(value is None or 0 <= value < 2**65 for value in msgspec.structs.astuple(each))


class Hasty(ManualClock):
    """Nobody needs to wait."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


def loads() -> Loads:
    async def never(path: str) -> str:
        raise AssertionError(path)

    return Loads(never, ManualClock())


def test_rates_are_of_the_time_between_two_looks() -> None:
    found = loads()
    found.take({UNIT: Count(answered=1000)}, 10.0)
    assert found.now[UNIT] == Load(unit=UNIT, answered=1000)  # who knows since when
    found.take({UNIT: Count(answered=1010, refused=4, failed=6, in_flight=2)}, 12.0)
    seen = found.now[UNIT]
    assert (seen.requests, seen.in_flight) == (1020, 2)
    assert (seen.requests_per_second, seen.failures_per_second) == (10.0, 3.0)
    found.take({UNIT: Count(answered=1010, refused=4, failed=6), "b.default": Count(answered=8)}, 14.0)
    assert found.now[UNIT].requests_per_second == 0.0
    assert found.now["b.default"].requests_per_second == 4.0


def test_totals_go_on_when_counters_begin_anew() -> None:
    found = loads()
    found.take({UNIT: Count(answered=100, failed=5)}, 0.0)
    found.take({UNIT: Count(answered=3, failed=5)}, 2.0)
    assert (found.now[UNIT].answered, found.now[UNIT].failed) == (103, 5)
    found.take({}, 4.0)  # Envoy was started again and nobody has called yet
    assert (found.now[UNIT].answered, found.now[UNIT].requests_per_second) == (103, 0.0)
    found.take({UNIT: Count(answered=4, failed=1)}, 6.0)
    assert (found.now[UNIT].answered, found.now[UNIT].failed) == (107, 6)


def test_a_latency_is_remembered_for_a_minute_and_a_unit_that_is_gone_too() -> None:
    found = loads()
    found.take({UNIT: Count(p50_seconds=0.1, p99_seconds=0.2)}, 0.0)
    found.take({UNIT: Count()}, 59.0)
    assert (found.now[UNIT].p50_seconds, found.now[UNIT].p99_seconds) == (0.1, 0.2)
    found.take({UNIT: Count()}, 61.0)
    assert found.now[UNIT].p50_seconds is None
    found.take({}, 120.0)
    assert UNIT in found.now
    found.take({}, 122.0)
    assert not found.now


async def test_looking_goes_on_after_answers_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    class Done(Exception):
        pass

    async def ask(path: str) -> str:
        assert path == stats.ASK
        step = answers.pop(0) if answers else Done()
        if isinstance(step, Exception):
            raise step
        return step

    answers: list[str | Exception] = [RetryLater("starting"), "nonsense", answer({at("rq_2xx"): 1})]
    found = Loads(ask, Hasty())
    with pytest.raises(Done):
        await found.run()
    assert found.now[UNIT].answered == 1
    assert "cannot be read" in caplog.text


def test_what_several_count_is_added_and_the_latest_answers_are_those_of_the_slowest() -> None:
    one = Load(unit="u", in_flight=1, answered=5, failed=1, requests_per_second=3.0, p50_seconds=0.1, p99_seconds=0.2)
    other = Load(unit="u", in_flight=2, answered=7, requests_per_second=1.0, p50_seconds=0.5, p99_seconds=0.9)
    found = stats.together(one, None, other)
    assert (found.in_flight, found.answered, found.failed, found.requests_per_second) == (3, 12, 1, 4.0)
    assert found.p50_seconds == pytest.approx(0.2)
    assert found.p99_seconds == 0.9
    assert stats.together(one, Load(unit="u")).p99_seconds == 0.2
    assert stats.together(Load(unit="u")) == Load(unit="u")


def test_of_one_that_ended_only_totals_count() -> None:
    load = Load(unit="u", in_flight=1, answered=5, requests_per_second=3.0, p50_seconds=0.1, p99_seconds=0.2)
    assert stats.ended(load) == Load(unit="u", answered=5)
