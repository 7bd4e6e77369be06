"""The gateway's figures as Prometheus text: a bounded number of series for each revision that was called.

Source: Prometheus text exposition format 0.0.4; Envoy, "Administration interface: /stats/prometheus".
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from modelyard.control.ir import names
from modelyard.control.ir.observed import Load
from modelyard.control.render import xds_stats

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,2})?"
_HISTOGRAM = re.compile(
    rf'envoy_cluster_upstream_rq_time_(bucket|sum|count)\{{{xds_stats.TAG}="([a-z0-9.-]{{1,512}})"'
    rf'(?:,le="({_NUMBER}|\+Inf)")?\}} ({_NUMBER})'
)
_ID = re.compile(r"[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}")
_ANSWER = re.compile(
    rf'envoy_{xds_stats.GATEWAY}_{xds_stats.ANSWERS}\{{model="([a-z0-9.-]{{0,512}})",code="([0-9]{{1,3}})"'
    rf',grpc="([0-9]{{0,10}})"\}} ({_NUMBER})'
)
_ASK = "/stats/prometheus?usedonly&filter="
_ANSWERS_NAME = rf"{xds_stats.GATEWAY}\.{xds_stats.ANSWERS}"
_ANSWERS = "modelyard_gateway_answers_total"
_DURATION = "modelyard_gateway_request_duration_seconds"
_LATENCY = "modelyard_gateway_recent_latency_seconds"


def _latency(load: Load) -> Iterable[tuple[str, float]]:
    found = {"0.5": load.p50_seconds, "0.99": load.p99_seconds}
    return ((f',quantile="{key}"', value) for key, value in found.items() if value is not None)


_Numbers = Callable[[Load], Iterable[tuple[str, float]]]
_SERIES: tuple[tuple[str, str, str, _Numbers], ...] = (
    (
        "modelyard_gateway_requests_total",
        "counter",
        "Requests for a revision by outcome: answered (below 400), refused (4xx), failed (5xx).",
        lambda load: (
            (',outcome="answered"', load.answered),
            (',outcome="refused"', load.refused),
            (',outcome="failed"', load.failed),
        ),
    ),
    (
        "modelyard_gateway_requests_in_flight",
        "gauge",
        "Requests that a replica has not answered yet.",
        lambda load: (("", load.in_flight),),
    ),
    (
        "modelyard_gateway_retries_total",
        "counter",
        "Tries after the first one of a request.",
        lambda load: (("", load.retries),),
    ),
    (
        "modelyard_gateway_connect_failures_total",
        "counter",
        "Connections to a replica that failed.",
        lambda load: (("", load.connect_failures),),
    ),
    (
        "modelyard_gateway_timeouts_total",
        "counter",
        "Requests that were not answered in time.",
        lambda load: (("", load.timeouts),),
    ),
    (
        "modelyard_gateway_recent_requests_per_second",
        "gauge",
        "In the latest seconds.",
        lambda load: (("", load.requests_per_second),),
    ),
    (
        "modelyard_gateway_recent_failures_per_second",
        "gauge",
        "In the latest seconds: answers of 5xx.",
        lambda load: (("", load.failures_per_second),),
    ),
    (
        _LATENCY,
        "gauge",
        "Of the latest seconds with requests, at most a minute ago.",
        _latency,
    ),
)


def ask(model: str = "") -> str:
    """Where Envoy's admin interface tells the histograms and answers of all models, or of one."""
    if not model:
        return f"{_ASK}^(cluster\\..*upstream_rq_time%7C{_ANSWERS_NAME}\\.)"
    if not _ID.fullmatch(model):
        return f"{_ASK}^-$"
    name, _, namespace = model.partition(".")
    unit = rf"cluster\.{name}-svc-[0-9]%2B\.{namespace}\.upstream_rq_time"
    return rf"{_ASK}^({unit}%7C{_ANSWERS_NAME}\.model\.{name}\.{namespace}\.code)"


def chosen(loads: Mapping[str, Load], model: str = "") -> list[Load]:
    """Loads of all units, or of those of a model."""
    return [load for unit, load in loads.items() if not model or names.public_id_of(unit) == model]


def text(loads: Iterable[Load], told: str | Mapping[str, str] = "", models: Collection[str] = ()) -> str:
    """All series. told: Envoy's answer to `ask`; lines of another form are left out. Of several: by their names, which
    become the label `gateway`, since counts of some that come and go cannot be added.

    models: those that there are; Envoy remembers also who was called and is no more.
    """
    answers = {"": told} if isinstance(told, str) else {f',gateway="{name}"': each for name, each in told.items()}
    shown = [(labels(each.unit), each) for each in sorted(loads, key=lambda each: each.unit)]
    lines: list[str] = []
    for name, kind, meaning, numbers in _SERIES:
        lines += (f"# HELP {name} {meaning}", f"# TYPE {name} {kind}")
        for label, load in shown:
            lines += [f"{name}{{{label}{more}}} {value:.12g}" for more, value in numbers(load)]
    lines += (
        f"# HELP {_DURATION} From the end of a request to the end of its answer by a replica.",
        f"# TYPE {_DURATION} histogram",
        *(line for more, each in answers.items() for line in _durations(each, more)),
        f"# HELP {_ANSWERS} All answers, those of the gateway itself included; model: empty where there is none.",
        f"# TYPE {_ANSWERS} counter",
        *(line for more, each in answers.items() for line in _answers(each, models, more)),
    )
    return "\n".join(lines) + "\n"


def labels(unit: str) -> str:
    """Which model, under its canonical id, and which of its revisions: both as in the access log."""
    return f'model="{names.public_id_of(unit)}",revision="{unit}"'


def _durations(told: str, more: str) -> Iterable[str]:
    for line in told.splitlines():
        match = _HISTOGRAM.fullmatch(line)
        if match is None:
            continue
        part, unit, bound, value = match.groups()
        if (part == "bucket") != (bound is not None):
            continue
        if part == "sum":
            value = f"{float(value) / 1000:.12g}"
        limit = "" if bound is None else f',le="{bound if bound == "+Inf" else f"{float(bound) / 1000:g}"}"'
        yield f"{_DURATION}_{part}{{{labels(unit)}{limit}{more}}} {value}"


def _answers(told: str, models: Collection[str], more: str) -> Iterable[str]:
    for line in told.splitlines():
        match = _ANSWER.fullmatch(line)
        if match is not None and (not match[1] or match[1] in models):
            model, code, grpc, value = match.groups()
            yield f'{_ANSWERS}{{model="{model}",code="{code}",grpc="{grpc}"{more}}} {value}'
