"""Loads of revisions are read from a server's metrics."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.gateway import metrics
from modelyard.control.ir.observed import Load
from modelyard.sdk import load


def test_what_the_gateway_tells_is_read_by_revision() -> None:
    given = [
        Load(unit="iris-svc-00002.default", answered=7, requests_per_second=0.5),
        Load(unit="iris-svc-00001.default", failed=2, p50_seconds=0.0125, p99_seconds=2.0),
        Load(unit="wine-svc-00001.default", answered=1),
    ]
    first, second = load.parse(metrics.text(given), "iris.default")
    assert (first.revision, second.revision) == ("iris-svc-00001", "iris-svc-00002")
    assert first.figure("requests_total", "failed") == 2
    assert first.figure("recent_latency_seconds", "0.5") == 0.0125
    assert first.figure("recent_latency_seconds", "0.99") == 2
    assert second.figure("requests_total", "answered") == 7
    assert second.figure("recent_requests_per_second") == 0.5
    assert second.figure("recent_latency_seconds", "0.5") is None


@given(st.text(max_size=300))
def test_lines_of_another_form_are_left_out(text: str) -> None:
    assert load.parse(text, "iris.default") == ()
