"""Route: which requests go to which units, in no proxy's words."""

from modelyard.control.ir.values import Key, Value


class Backend(Value, frozen=True, kw_only=True):
    """A share of a route's traffic. weight: 1..100; the weights of a route add up to 100."""

    unit: str
    weight: int = 100


class Route(Value, frozen=True, kw_only=True):
    """Everything under one public model.

    ids: all public ids (`iris.default`, `iris`), the canonical one first. No backends: requests get 503 with
    Retry-After and `unavailable` as the message. timeout_seconds: of one request, retries included.
    """

    owner: Key
    ids: tuple[str, ...]
    backends: tuple[Backend, ...] = ()
    timeout_seconds: float = 60.0
    unavailable: str = ""


class Endpoints(Value, frozen=True, kw_only=True):
    """Where the ready replicas of a unit listen: Unix socket paths (`unix:/run/x.sock`) or `host:port`, sorted."""

    unit: str
    addresses: tuple[str, ...] = ()
