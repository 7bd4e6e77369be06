"""Route: which requests go to which units, in no proxy's words."""

import msgspec

from modelyard.control.ir.access import OPEN, Access
from modelyard.control.ir.values import Key, Value


class Backend(Value, frozen=True, kw_only=True):
    """A share of a route's traffic. weight: 1..100; the weights of a route add up to 100."""

    unit: str
    weight: int = 100


class Version(Value, frozen=True, kw_only=True):
    """An address of its own for one unit, below `/versions/<name>`: a tag, or the number of a revision.

    number: of the revision, which is what the unit's replicas call themselves.
    """

    name: str
    unit: str
    number: str


class Mirror(Value, frozen=True, kw_only=True):
    """A unit that gets copies of requests, whose answers nobody sees. percent: of the requests, 1..100.

    compared_percent: of the copies, how many are compared with the answer that a caller got; 0..100.
    """

    unit: str
    percent: int = 100
    compared_percent: int = 0


class Route(Value, frozen=True, kw_only=True):
    """Everything under one public model.

    ids: all public ids (`iris.default`, `iris`), the canonical one first. No backends: requests get 503 with
    Retry-After and `unavailable` as the message. timeout_seconds: of one request, retries included.
    sticky_header: requests with the same value of it go to the same backend. retries: after the first try.
    max_concurrency: requests under way at one time for each unit in each gateway, further ones get 503; 0: the
    gateway's own bound. max_request_bytes: of a body; 0: the gateway's own bound. compressed: answers are, for callers
    who accept that. internal: only callers of the gateway's internal listener see it.
    """

    owner: Key
    ids: tuple[str, ...]
    backends: tuple[Backend, ...] = ()
    timeout_seconds: float = 60.0
    unavailable: str = ""
    versions: tuple[Version, ...] = ()
    mirror: Mirror | None = None
    sticky_header: str = ""
    retries: int = 3
    max_concurrency: int = 0
    max_request_bytes: int = 0
    compressed: bool = False
    internal: bool = False
    access: Access = Access()

    @property
    def for_anybody(self) -> "Route":
        """The same route, open: to compare all but who may call."""
        return self if self.access == OPEN else msgspec.structs.replace(self, access=OPEN)

    @property
    def units(self) -> tuple[str, ...]:
        """Every unit that requests or copies of them may go to, each once."""
        if len(self.backends) == 1 and not self.versions and self.mirror is None:
            return (self.backends[0].unit,)  # most are so, and every change asks several times
        mirrored = [self.mirror.unit] if self.mirror else []
        return tuple(dict.fromkeys([*(b.unit for b in self.backends), *(v.unit for v in self.versions), *mirrored]))


class Endpoints(Value, frozen=True, kw_only=True):
    """Where the ready replicas of a unit listen: Unix socket paths (`unix:/run/x.sock`) or `host:port`, sorted.

    zones: where each of them is, in the order of the addresses, "" where that is not known; () where it is of none.
    """

    unit: str
    addresses: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
