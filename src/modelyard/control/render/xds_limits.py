"""How often a service may be called, in Envoy's words: token buckets of the filter `limit`, one set for each scope.

A request takes a token from every bucket that is meant for it, the one that fills most slowly first, and is refused
where there is none; what it has taken by then is not given back. Buckets fill evenly: of 60 requests a minute one comes
back every second. They belong to one Envoy and one public id, and start full again when the route changes.

Whoever cannot be told apart shares a bucket with all others of that kind, so every request meets every limit by user.
Source: Envoy API v3 (local_rate_limit.proto, route_components.proto, rate_limit_descriptors/expr).
"""

import math
from functools import lru_cache
from typing import Any

from modelyard.control.ir.access import Caller, Claim, RateLimit, Subject
from modelyard.control.render import cel
from modelyard.control.render.part import Part
from modelyard.control.render.xds_access import METADATA, TOKEN

Json = dict[str, Any]

LIMIT = "limit"
"""The name of the filter."""
MOST_USERS = 10_000
"""For each scope: of more users at one time, who was not seen for longest begins with a full bucket again."""

_TYPE = "type.googleapis.com/"
_LOCAL = f"{_TYPE}envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_EXPRESSION = f"{_TYPE}envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
_ALWAYS = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
_TRUE = "true"
# Envoy wants a bucket for what has no other one.
_BOTTOMLESS = {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"}


def unlimited() -> Json:
    """Of the filter in the listener, and of answers that everybody may have."""
    return {"@type": _LOCAL, "stat_prefix": LIMIT, "token_bucket": _BOTTOMLESS}


@lru_cache(maxsize=1024)
def of_route(limits: tuple[RateLimit, ...]) -> Json:
    """What `limit` does in the scopes of a route. Not to be changed by who gets it."""
    actions: list[Json] = []
    buckets: list[Json] = []
    for number, limit in enumerate(limits):
        for action, key, value in _descriptors(str(number), limit):
            actions.append({"actions": [action]})
            buckets.append({"entries": [{"key": key, "value": value}], "token_bucket": _bucket(limit)})
    return Part(
        {
            "@type": _LOCAL,
            "stat_prefix": LIMIT,
            "token_bucket": _BOTTOMLESS,
            "always_consume_default_token_bucket": False,
            "filter_enabled": _ALWAYS,
            "filter_enforced": _ALWAYS,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limited_as_resource_exhausted": True,
            "rate_limits": actions,
            "descriptors": buckets,
            "max_dynamic_descriptors": MOST_USERS,
            "response_headers_to_add": [_retry_after(limits)],
        }
    )


def _descriptors(number: str, limit: RateLimit) -> list[tuple[Json, str, str]]:
    """What puts a request to a bucket: the action, its key, and the value that it must give ("": each its own)."""
    if limit.by == "service":
        return [({"generic_key": {"descriptor_key": number, "descriptor_value": _TRUE}}, number, _TRUE)]
    if limit.by == "group":
        members = [_is(each) for each in limit.callers]
        return [(_expression(number, cel.some(*members)), number, _TRUE)] if members else []
    told = [(_user(f"{number}.{place}", each), f"{number}.{place}", "") for place, each in enumerate(limit.users)]
    names = [_names(each) for each in limit.users]
    others = cel.no(cel.some(*names)) if names else cel.truth(True)
    return [*told, (_expression(number, others), number, _TRUE)]


def _user(key: str, subject: Subject) -> Json:
    """Gives the name of a user, if it is a string that is not empty: just what `_names` asks for."""
    path = [{"key": each} for each in (subject.issuer, *subject.path)]
    return {"metadata": {"descriptor_key": key, "metadata_key": {"key": METADATA, "path": path}, "source": "DYNAMIC"}}


def _names(subject: Subject) -> Json:
    there, value = cel.metadata(METADATA, subject.issuer, *subject.path)
    return cel.every(there, cel.is_text(value), cel.no(cel.equal(value, cel.text(""))))


def _is(caller: Caller) -> Json:
    if not caller.issuer:
        there, _ = cel.metadata(METADATA, TOKEN)
        return cel.truth(False) if caller.claims else cel.no(there)
    there, _ = cel.metadata(METADATA, caller.issuer)
    return cel.every(there, *(_makes(caller.issuer, each) for each in caller.claims))


def _makes(issuer: str, claim: Claim) -> Json:
    there, value = cel.metadata(METADATA, issuer, *claim.path)
    if isinstance(claim.value, bool):
        wanted, of_type = cel.truth(claim.value), cel.is_bool(value)
    else:
        wanted, of_type = cel.text(claim.value), cel.is_text(value)
    same = cel.every(of_type, cel.equal(value, wanted))
    if claim.listed:
        same = cel.some(same, cel.every(cel.is_list(value), cel.contains(value, wanted)))
    return cel.every(there, same)


def _expression(key: str, expression: Json) -> Json:
    config = {"@type": _EXPRESSION, "descriptor_key": key, "skip_if_error": True, "parsed": expression}
    return {"extension": {"name": "envoy.rate_limit_descriptors.expr", "typed_config": config}}


def _bucket(limit: RateLimit) -> Json:
    return {
        "max_tokens": limit.requests,
        "tokens_per_fill": limit.requests,
        "fill_interval": f"{limit.seconds}s",
    }


def _retry_after(limits: tuple[RateLimit, ...]) -> Json:
    """The least that any of them needs to let one more request through; `x-ratelimit-reset` tells it exactly."""
    seconds = min(math.ceil(each.seconds / each.requests) for each in limits)
    return {"header": {"key": "retry-after", "value": str(seconds)}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
