"""`modelyard describe` of a service shows what its revisions have to do."""

from modelyard.cli.describe import described
from modelyard.sdk.case import Case
from modelyard.sdk.load import Loads, RevisionLoad
from yard_testing import service

FIGURES = {
    ("recent_requests_per_second", ""): 1234.5,
    ("recent_failures_per_second", ""): 0.25,
    ("recent_latency_seconds", "0.5"): 0.0,
    ("recent_latency_seconds", "0.99"): 0.01234,
    ("requests_total", "answered"): 1_000_000.0,
}


def shown(loads: Loads) -> str:
    return described(Case(body=service("iris") | {"status": {}}, loads=loads), 0.0)


def test_each_revision_that_was_called_has_a_row() -> None:
    text = shown(Loads(revisions=(RevisionLoad(revision="iris-svc-00001", figures=FIGURES),)))
    (_, rows) = text.split("Load:\n")
    titles, row = (line.split() for line in rows.splitlines()[:2])
    assert titles[:3] == ["REVISION", "REQUESTS/S", "FAILURES/S"]
    assert row == ["iris-svc-00001", "1,234", "0.25", "<1", "12.3", "1,000,000", "-", "-"]


def test_a_service_that_nobody_called_has_no_section() -> None:
    assert "Load" not in shown(Loads())


def test_whoever_may_not_see_it_is_told() -> None:
    assert "Load: not known, since you may not\n" in shown(Loads(problem="you may not"))
