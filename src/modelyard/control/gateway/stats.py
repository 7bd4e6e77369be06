"""What Envoy counts, as loads of units and as Prometheus text.

Source: Envoy, "Administration interface: /stats"; Prometheus text exposition format 0.0.4.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater
from modelyard.control.ir.observed import Load
from modelyard.control.render import xds, xds_stats, xds_tracing

_log = logging.getLogger(__name__)

ASK = "/stats?usedonly&format=json&filter=^cluster\\."
_POLL_SECONDS = 2.0
_PAUSES = 10  # as long as a look took: with ten thousand busy units that is more than half a second
_REMEMBERED_SECONDS = 60.0
_LARGEST = 2**63
_OTHERS = ("", xds.CONTROL, xds_tracing.COLLECTOR)
_FIELDS = {
    "rq_active": "in_flight",
    "rq_2xx": "answered",
    "rq_3xx": "answered",
    "rq_4xx": "refused",
    "rq_5xx": "failed",
    "rq_retry": "retries",
    "rq_timeout": "timeouts",
    "cx_connect_fail": "connect_failures",
}
_TOTALS = ("answered", "refused", "failed", "connect_failures", "retries", "timeouts")


class _Value(msgspec.Struct):
    interval: float | None = None


class _Quantiles(msgspec.Struct):
    name: str
    values: list[_Value]


class _Histograms(msgspec.Struct):
    supported_quantiles: list[float] = []
    computed_quantiles: list[_Quantiles] = []


class _Stat(msgspec.Struct):
    name: str = ""
    value: Any = None
    histograms: _Histograms | None = None


class _Answer(msgspec.Struct):
    stats: list[_Stat]


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Of one unit since Envoy was started. p50_seconds, p99_seconds: of its latest interval."""

    in_flight: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    connect_failures: int = 0
    retries: int = 0
    timeouts: int = 0
    p50_seconds: float | None = None
    p99_seconds: float | None = None


_decoder = msgspec.json.Decoder(_Answer)


def counts(answer: str | bytes) -> dict[str, Count]:
    """By unit, from Envoy's answer to ASK. Raises ValueError where it is none."""
    found: dict[str, dict[str, int]] = {}
    quantiles: dict[str, tuple[float | None, float | None]] = {}
    for stat in _decoder.decode(answer).stats:
        if stat.histograms is not None:
            quantiles.update(_quantiles(stat.histograms))
            continue
        unit, what = _split(stat.name)
        field = _FIELDS.get(what)
        if field and type(stat.value) is int and 0 <= stat.value < _LARGEST:
            of_unit = found.setdefault(unit, {})
            of_unit[field] = of_unit.get(field, 0) + stat.value
    return {
        unit: Count(
            **found.get(unit, {}),
            p50_seconds=quantiles.get(unit, (None, None))[0],
            p99_seconds=quantiles.get(unit, (None, None))[1],
        )
        for unit in {**found, **quantiles}
    }


def _split(name: str) -> tuple[str, str]:
    """A unit and what is counted; the latter "" for what is not of a unit."""
    if not name.startswith(xds_stats.PREFIX):
        return "", ""
    unit, found, what = name.removeprefix(xds_stats.PREFIX).rpartition(".upstream_")
    return unit, what if found and unit.partition(".")[0] not in _OTHERS else ""


def _quantiles(histograms: _Histograms) -> Iterator[tuple[str, tuple[float | None, float | None]]]:
    try:
        median, late = (histograms.supported_quantiles.index(each) for each in (50.0, 99.0))
    except ValueError:
        return
    for each in histograms.computed_quantiles:
        unit, what = _split(each.name)
        if what == "rq_time" and len(each.values) > max(median, late):
            yield unit, (_seconds(each.values[median]), _seconds(each.values[late]))


def _seconds(value: _Value) -> float | None:
    milliseconds = value.interval
    if milliseconds is None or not math.isfinite(milliseconds) or milliseconds < 0:
        return None
    return milliseconds / 1000


class _Unit:
    """What is remembered of a unit between two looks."""

    __slots__ = ("at", "before", "latency", "latency_at", "load")

    def __init__(self, unit: str, at: float) -> None:
        self.at = at
        self.before = Count()
        self.load = Load(unit=unit)
        self.latency: tuple[float | None, float | None] = (None, None)
        self.latency_at = at

    def look(self, now: Count, at: float, *, is_first: bool) -> None:
        grown = {name: _grown(getattr(self.before, name), getattr(now, name)) for name in _TOTALS}
        seconds = max(at - self.at, 0.001)
        if now.p50_seconds is not None:
            self.latency, self.latency_at = (now.p50_seconds, now.p99_seconds), at
        elif at - self.latency_at > _REMEMBERED_SECONDS:
            self.latency = (None, None)
        lately = 0.0 if is_first else 1 / seconds
        self.load = Load(
            unit=self.load.unit,
            in_flight=now.in_flight,
            **{name: getattr(self.load, name) + more for name, more in grown.items()},
            requests_per_second=lately * (grown["answered"] + grown["refused"] + grown["failed"]),
            failures_per_second=lately * grown["failed"],
            p50_seconds=self.latency[0],
            p99_seconds=self.latency[1],
        )
        self.before, self.at = now, at


def _grown(before: int, now: int) -> int:
    """A counter that fell began anew with its process, or with its cluster."""
    return now - before if now >= before else now


def ended(load: Load) -> Load:
    """Of a proxy that is not there any more: only its totals count."""
    return Load(unit=load.unit, **{name: getattr(load, name) for name in _TOTALS})


def together(*loads: Load | None) -> Load:
    """What several proxies count of one unit; at least one does.

    Their counts and rates are added. Of times, the median is the mean of theirs, weighted by their requests, and the
    99th of a hundred the latest of theirs, which is never too early.
    """
    found = [each for each in loads if each is not None]
    late = [each.p99_seconds for each in found if each.p99_seconds is not None]
    medians = [(each.p50_seconds, each.requests_per_second) for each in found if each.p50_seconds is not None]
    weight = sum(each for _, each in medians)
    shares = [(value, each / weight if weight else 1 / len(medians)) for value, each in medians]
    return Load(
        unit=found[0].unit,
        in_flight=sum(each.in_flight for each in found),
        **{name: sum(getattr(each, name) for each in found) for name in _TOTALS},
        requests_per_second=sum(each.requests_per_second for each in found),
        failures_per_second=sum(each.failures_per_second for each in found),
        p50_seconds=sum(value * share for value, share in shares) if shares else None,
        p99_seconds=max(late, default=None),
    )


class Loads:
    """Looks again and again. ask: for a path of Envoy's admin interface; raises RetryLater."""

    def __init__(self, ask: Callable[[str], Awaitable[str]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._units: dict[str, _Unit] = {}
        self._looked_at: float | None = None
        self._now: dict[str, Load] = {}

    @property
    def now(self) -> Mapping[str, Load]:
        """As of the latest look, by unit; those that nobody has called yet are left out."""
        return MappingProxyType(self._now)

    def began_anew(self) -> None:
        """Envoy was started again, and counts from nought."""
        for each in self._units.values():
            each.before = Count()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock.monotonic()
            try:
                answer = await self._ask(ASK)
                self.take(await asyncio.to_thread(counts, answer), self._clock.monotonic())
            except RetryLater as error:  # it is being started, for instance
                _log.debug("no statistics: %s", error)
            except ValueError:
                _log.exception("Envoy's statistics cannot be read; the loads of units are older ones")
            await self._clock.sleep(max(_POLL_SECONDS, _PAUSES * (self._clock.monotonic() - began)))

    def take(self, found: Mapping[str, Count], at: float) -> None:
        """Counts as of a time (monotonic). Units that Envoy knows no more are forgotten after a minute."""
        for unit, count in found.items():
            known = self._units.get(unit)
            if known is None:
                known = self._units[unit] = _Unit(unit, at if self._looked_at is None else self._looked_at)
            known.look(count, at, is_first=self._looked_at is None)
        for unit in [each for each in self._units if each not in found]:
            known = self._units[unit]
            known.load = msgspec.structs.replace(
                known.load, in_flight=0, requests_per_second=0.0, failures_per_second=0.0
            )
            known.before = Count()
            if at - known.at > _REMEMBERED_SECONDS:
                del self._units[unit]
        self._looked_at = at
        self._now = {unit: each.load for unit, each in self._units.items()}
