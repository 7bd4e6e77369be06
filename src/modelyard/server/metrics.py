"""`/metrics` of a server: how the loop is doing, and what the gateway counts about each revision."""

from collections.abc import Awaitable, Callable, Mapping, Sized
from typing import Protocol

from modelyard.control.engine.loop import Counters


class Measured(Protocol):
    """A gateway that tells its figures as Prometheus text; of one model, by its canonical id. Raises RetryLater."""

    async def metrics(self, model: str = "") -> str: ...


class Writing(Protocol):
    """A client, which has sent so many requests that may change something."""

    writes_sent: int


def page(
    gateway: Measured, counters: Counters, queue: Sized, client: Writing
) -> Callable[[Mapping[str, str]], Awaitable[str]]:
    """What answers a request for it: for all, or with `?model=iris.default` for one model alone."""

    async def answer(query: Mapping[str, str]) -> str:
        if model := query.get("model", ""):
            return await gateway.metrics(model)
        return _loop(counters, len(queue), client.writes_sent) + await gateway.metrics()

    return answer


def _loop(counters: Counters, waiting: int, writes: int) -> str:
    series = (
        ("modelyard_reconciles_total", "counter", "Looks at an object.", counters.reconciles),
        ("modelyard_reconcile_failures_total", "counter", "Looks that are repeated.", counters.failures),
        ("modelyard_reconcile_seconds_total", "counter", "Time that looks took, waiting included.", counters.seconds),
        ("modelyard_writes_total", "counter", "Requests to the API server that may change something.", writes),
        ("modelyard_objects_waiting", "gauge", "Objects to be looked at.", waiting),
    )
    lines = [
        f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n{name} {value:.12g}\n" for name, kind, meaning, value in series
    ]
    return "".join(lines)
