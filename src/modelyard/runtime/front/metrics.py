"""Prometheus text, by hand: a client library costs more per request than everything counted here.

Source: Prometheus text exposition format 0.0.4.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from modelyard.wire.report import ShadowReport

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, label: str) -> Iterable[str]:
        count = 0
        for bound, more in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            count += more
            yield f'{name}_bucket{{{label},le="{bound}"}} {count}'
        yield f"{name}_sum{{{label}}} {self.total:.9g}"
        yield f"{name}_count{{{label}}} {count}"


class ModelMetrics:
    """The figures of one model. name: its canonical id, whatever alias the caller used."""

    __slots__ = ("batch_rows", "codes", "in_flight", "name", "queue_length", "seconds")

    def __init__(self, name: str) -> None:
        self.name = name
        self.codes: dict[int, int] = {}
        self.seconds = _Histogram(_SECONDS)
        self.batch_rows = _Histogram(_ROWS)
        self.in_flight = 0
        self.queue_length: Callable[[], int] = lambda: 0

    def answered(self, code: int, seconds: float) -> None:
        """Count an inference request that was answered (499: its client went away first)."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.seconds.observe(seconds)


def text(models: Iterable[ModelMetrics], compared: Mapping[str, ShadowReport] = MappingProxyType({})) -> bytes:
    """The body of `GET /metrics`. compared: by model, what came of comparing copies of requests."""
    found = sorted(models, key=lambda model: model.name)
    label = {model.name: f'model="{model.name}"' for model in found}
    lines = [
        "# HELP modelyard_requests_total Inference requests answered, by HTTP status.",
        "# TYPE modelyard_requests_total counter",
    ]
    for model in found:
        for code, count in sorted(model.codes.items()):
            lines.append(f'modelyard_requests_total{{{label[model.name]},code="{code}"}} {count}')
    lines += _histogram("modelyard_request_duration_seconds", "From the last byte of a request to its answer.")
    for model in found:
        lines += model.seconds.lines("modelyard_request_duration_seconds", label[model.name])
    lines += _histogram("modelyard_batch_rows", "Rows in one call of the model.")
    for model in found:
        lines += model.batch_rows.lines("modelyard_batch_rows", label[model.name])
    lines += _gauge("modelyard_requests_in_flight", "Inference requests received and not answered yet.")
    lines += [f"modelyard_requests_in_flight{{{label[model.name]}}} {model.in_flight}" for model in found]
    lines += _gauge("modelyard_queue_length", "Inference requests that wait for their call of the model.")
    lines += [f"modelyard_queue_length{{{label[model.name]}}} {model.queue_length()}" for model in found]
    if compared:
        lines += _comparisons(compared)
    return ("\n".join(lines) + "\n").encode()


def _comparisons(compared: Mapping[str, ShadowReport]) -> Iterable[str]:
    name = "modelyard_shadow_answers_total"
    yield f"# HELP {name} Copies of requests chosen for comparison with the revision that serves, by what came of it."
    yield f"# TYPE {name} counter"
    for model, found in sorted(compared.items()):
        outcomes = {
            "equal": found.compared - found.different,
            "different": found.different,
            "shadow_failed": found.shadow_failed,
            "serving_failed": found.serving_failed,
            "both_failed": found.both_failed,
            "skipped": found.skipped,
        }
        for outcome, count in outcomes.items():
            yield f'{name}{{model="{model}",outcome="{outcome}"}} {count}'
    name = "modelyard_shadow_noisy_total"
    yield f"# HELP {name} Comparisons in which the revision that serves gave two different answers."
    yield f"# TYPE {name} counter"
    for model, found in sorted(compared.items()):
        yield f'{name}{{model="{model}"}} {found.noisy}'
    yield from _gauge("modelyard_shadow_largest_difference", "Of two numbers; noise: of the revision that serves.")
    for model, found in sorted(compared.items()):
        largest = {
            ("answers", "absolute"): found.largest_difference,
            ("answers", "relative"): found.largest_relative_difference,
            ("noise", "absolute"): found.largest_noise,
            ("noise", "relative"): found.largest_relative_noise,
        }
        for (between, kind), value in largest.items():
            labels = f'model="{model}",between="{between}",kind="{kind}"'
            yield f"modelyard_shadow_largest_difference{{{labels}}} {value:.9g}"


def _histogram(name: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} histogram"]


def _gauge(name: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
