from modelyard.runtime.front import metrics
from modelyard.runtime.front.metrics import ModelMetrics
from modelyard.wire.report import ShadowReport


def test_histograms_are_cumulative_and_bounds_belong_to_their_bucket() -> None:
    model = ModelMetrics("m")
    for rows in (1, 2, 2, 500):
        model.batch_rows.observe(rows)
    lines = metrics.text([model]).decode().splitlines()
    assert 'modelyard_batch_rows_bucket{model="m",le="1"} 1' in lines
    assert 'modelyard_batch_rows_bucket{model="m",le="2"} 3' in lines
    assert 'modelyard_batch_rows_bucket{model="m",le="256"} 3' in lines
    assert 'modelyard_batch_rows_bucket{model="m",le="+Inf"} 4' in lines
    assert 'modelyard_batch_rows_sum{model="m"} 505' in lines
    assert 'modelyard_batch_rows_count{model="m"} 4' in lines


def test_every_model_and_code_has_its_own_line_and_every_metric_says_what_it_is() -> None:
    first, second = ModelMetrics("b"), ModelMetrics("a")
    first.answered(200, 0.001)
    first.answered(200, 0.001)
    second.answered(429, 0.5)
    second.queue_length = lambda: 7
    lines = metrics.text([first, second]).decode().splitlines()
    assert 'modelyard_requests_total{model="b",code="200"} 2' in lines
    assert 'modelyard_requests_total{model="a",code="429"} 1' in lines
    assert 'modelyard_queue_length{model="a"} 7' in lines
    names = {line.split("{")[0] for line in lines if not line.startswith("#")}
    described = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in names} == described


def test_comparisons_are_told_once_there_are_some() -> None:
    assert b"shadow" not in metrics.text([ModelMetrics("m")])
    found = ShadowReport(compared=7, different=2, noisy=1, skipped=3, largest_difference=0.25)
    lines = metrics.text([ModelMetrics("m")], {"m": found}).decode().splitlines()
    assert 'modelyard_shadow_answers_total{model="m",outcome="equal"} 5' in lines
    assert 'modelyard_shadow_answers_total{model="m",outcome="different"} 2' in lines
    assert 'modelyard_shadow_answers_total{model="m",outcome="skipped"} 3' in lines
    assert 'modelyard_shadow_noisy_total{model="m"} 1' in lines
    assert 'modelyard_shadow_largest_difference{model="m",between="answers",kind="absolute"} 0.25' in lines
    assert 'modelyard_shadow_largest_difference{model="m",between="noise",kind="relative"} 0' in lines
