"""The gateway's figures as Prometheus text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.gateway import metrics
from modelyard.control.ir import names
from modelyard.control.ir.observed import Load

UNIT = "iris-svc-00001.default"
LABELS = 'model="iris.default",revision="iris-svc-00001.default"'
ENVOY = f"""# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{{unit="{UNIT}",le="2.5"}} 3
envoy_cluster_upstream_rq_time_bucket{{unit="{UNIT}",le="1e+03"}} 3
envoy_cluster_upstream_rq_time_bucket{{unit="{UNIT}",le="+Inf"}} 4
envoy_cluster_upstream_rq_time_sum{{unit="{UNIT}"}} 1250.5
envoy_cluster_upstream_rq_time_count{{unit="{UNIT}"}} 4
"""
SAMPLE = re.compile(r'[a-z_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\} [0-9.e+-]+')


def samples(text: str) -> list[str]:
    found = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(map(SAMPLE.fullmatch, found))
    return found


def test_a_revision_has_its_counts_and_what_happened_lately() -> None:
    load = Load(unit=UNIT, answered=1_234_567_890, refused=2, failed=3, retries=4, in_flight=5, p50_seconds=0.25)
    found = samples(metrics.text([load]))
    name = "modelyard_gateway_requests_total"
    assert [line for line in found if line.startswith(name)] == [
        f'{name}{{{LABELS},outcome="answered"}} 1234567890',
        f'{name}{{{LABELS},outcome="refused"}} 2',
        f'{name}{{{LABELS},outcome="failed"}} 3',
    ]
    assert f"modelyard_gateway_requests_in_flight{{{LABELS}}} 5" in found
    assert f"modelyard_gateway_retries_total{{{LABELS}}} 4" in found
    assert [line for line in found if "latency" in line] == [
        f'modelyard_gateway_recent_latency_seconds{{{LABELS},quantile="0.5"}} 0.25'
    ]


def test_durations_are_told_in_seconds() -> None:
    name = "modelyard_gateway_request_duration_seconds"
    assert samples(metrics.text([], ENVOY)) == [
        f'{name}_bucket{{{LABELS},le="0.0025"}} 3',
        f'{name}_bucket{{{LABELS},le="1"}} 3',
        f'{name}_bucket{{{LABELS},le="+Inf"}} 4',
        f"{name}_sum{{{LABELS}}} 1.2505",
        f"{name}_count{{{LABELS}}} 4",
    ]


def test_answers_are_told_by_model_and_status() -> None:
    said = """envoy_gateway_answers{model="iris.default",code="200",grpc="5"} 3
envoy_gateway_answers{model="",code="404",grpc=""} 1
envoy_gateway_answers{model="a\\"b",code="404",grpc=""} 1"""
    assert samples(metrics.text([], said, {"wine.default"})) == [
        'modelyard_gateway_answers_total{model="",code="404",grpc=""} 1'
    ]
    assert samples(metrics.text([], said, {"iris.default"})) == [
        'modelyard_gateway_answers_total{model="iris.default",code="200",grpc="5"} 3',
        'modelyard_gateway_answers_total{model="",code="404",grpc=""} 1',
    ]


def test_every_series_says_what_it_is() -> None:
    text = metrics.text([Load(unit=UNIT)], ENVOY)
    told = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram)$", text, re.MULTILINE))
    assert told == set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    assert {re.sub(r"_(bucket|sum|count)\{.*|\{.*", "", line) for line in samples(text)} <= told


@pytest.mark.parametrize(
    ("unit", "public_id"),
    [
        ("iris-svc-00001.default", "iris.default"),
        ("a-svc-b-svc-00012.shop", "a-svc-b.shop"),
        ("a.default", "a.default"),
        ("a", "a"),
    ],
)
def test_a_unit_names_its_model(unit: str, public_id: str) -> None:
    assert names.public_id_of(unit) == public_id


def test_one_model_can_be_asked_about() -> None:
    loads = {each: Load(unit=each) for each in (UNIT, "iris-svc-00002.default", "iris-svc-00001.shop")}
    assert [each.unit for each in metrics.chosen(loads, "iris.default")] == [UNIT, "iris-svc-00002.default"]
    assert len(metrics.chosen(loads)) == 3
    assert "iris-svc-[0-9]%2B\\.default\\." in metrics.ask("iris.default")
    assert "model\\.iris\\.default\\.code" in metrics.ask("iris.default")
    for bad in ("x&filter=", "a.b.c", ".*", "%2e"):
        assert bad not in metrics.ask(bad).partition("filter=")[2]


@given(st.text(max_size=200) | st.lists(st.sampled_from([*ENVOY.splitlines(), 'x{"', "\x00"])).map("\n".join))
def test_whatever_envoy_says_the_text_is_well_formed(said: str) -> None:
    samples(metrics.text([], said))


def test_what_several_envoys_tell_is_told_under_their_names() -> None:
    answer = 'envoy_gateway_answers{model="iris.default",code="200",grpc=""} 3'
    found = samples(metrics.text([], {"one": answer, "two": f"{answer}\n{ENVOY}"}, {"iris.default"}))
    name = "modelyard_gateway_answers_total"
    assert [line for line in found if line.startswith(name)] == [
        f'{name}{{model="iris.default",code="200",grpc="",gateway="{each}"}} 3' for each in ("one", "two")
    ]
    assert f'modelyard_gateway_request_duration_seconds_count{{{LABELS},gateway="two"}} 4' in found
