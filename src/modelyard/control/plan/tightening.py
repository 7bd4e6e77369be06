"""What AccessPolicies take away from what roles grant."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from modelyard.api import settings
from modelyard.api.access import AccessPolicy
from modelyard.api.access import RateLimit as Limit
from modelyard.base import durations
from modelyard.control.ir.access import Authentication, RateLimit
from modelyard.control.plan.callers import Callers
from modelyard.control.plan.platform import Standing

MOST_LIMITS = 64
"""For a service: each costs every request something. Those of older policies come first, so that nobody who may only
make policies takes a limit away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tightening:
    """What an AccessPolicy says about calls. services, issuers None: all of them; authentication None: nothing.

    since: when it was made, in the API's words.
    """

    name: str
    since: str = ""
    services: frozenset[str] | None = None
    authentication: Authentication | None = None
    issuers: frozenset[str] | None = None
    limits: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, policy: AccessPolicy) -> "Tightening":
        """What a policy says."""
        spec = policy.spec
        return cls(
            name=policy.metadata.name,
            since=policy.metadata.creation_timestamp or "",
            services=None if spec.services is None else frozenset(spec.services),
            authentication=spec.authentication,
            issuers=None if spec.issuers is None else frozenset(spec.issuers),
            limits=spec.rate_limits or (),
        )

    @classmethod
    def unreadable(cls, name: str, services: object) -> "Tightening":
        """Of a policy that cannot be read: nobody may call what it may be about. services: spec.services as stored."""
        names = frozenset(filter(_is_text, services)) if isinstance(services, list) else frozenset[str]()
        known = isinstance(services, list) and len(names) == len(services) and names
        return cls(name=name, services=names if known else None, authentication="required", issuers=frozenset())


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def in_order(policies: Iterable[Tightening]) -> list[Tightening]:
    """The oldest first."""
    return sorted(policies, key=lambda each: (each.since, each.name))


def folded(policies: Sequence[Tightening]) -> tuple[Tightening, ...]:
    """As much for all services as these that are in order, and never many: those whose limits count, and one more."""
    said = [each.authentication for each in policies if each.authentication is not None]
    rest = Tightening(
        name="", authentication=settings.stricter(*said) if said else None, issuers=issuers(policies), limits=()
    )
    seen: set[Limit] = set()
    kept = []
    for each in policies:
        if len(seen) < MOST_LIMITS and not seen.issuperset(each.limits):
            kept.append(each)
            seen.update(each.limits)
    return (rest, *kept)


def authentication(said: Iterable[Authentication], standing: Standing) -> Authentication:
    """The strictest of what is said, else the default; never less than the floor."""
    return settings.stricter(standing.floor, *(tuple(said) or (standing.authentication,)))


def issuers(policies: Iterable[Tightening]) -> frozenset[str] | None:
    """Those that every policy lets in; None: all of them."""
    found: frozenset[str] | None = None
    for each in policies:
        if each.issuers is not None:
            found = each.issuers if found is None else found & each.issuers
    return found


def counted(policies: Iterable[Tightening], callers: Callers) -> tuple[RateLimit, ...]:
    """The limits of policies that are in order: each once, and no more than MOST_LIMITS."""
    said = (limit for each in policies for limit in limits(each, callers))
    return tuple(dict.fromkeys(said))[:MOST_LIMITS]


def limits(policy: Tightening, callers: Callers) -> Iterator[RateLimit]:
    """A policy's limits, in the order in which it says them, without those for groups that nobody can be in."""
    for each in policy.limits:
        group = callers.of((True, each.group or "")) if each.by == "group" else ()
        if each.by == "group" and not group:
            continue
        yield RateLimit(
            requests=each.requests,
            seconds=max(1, math.ceil(durations.parse(each.per))),
            by=each.by,
            users=callers.users() if each.by == "user" else (),
            callers=group,
        )
