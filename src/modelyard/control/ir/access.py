"""Access: who may call a route and how often, in no proxy's words and in no claim's dialect but its own."""

from typing import Literal

from modelyard.control.ir.values import Value

Authentication = Literal["none", "optional", "required"]
"""none: anybody may call, tokens are not read. optional: who has no token is anonymous. required: a token is needed."""


class Claim(Value, frozen=True, kw_only=True, order=True):
    """What a token must say. path: from the top of its claims; listed: the claim may also be a list with the value."""

    path: tuple[str, ...]
    value: str | bool
    listed: bool = False


class Caller(Value, frozen=True, kw_only=True):
    """Whoever bears a token of an issuer (its name, see `Issuer`) that makes all these claims.

    issuer "": who bears no token that is in order; there are no claims then.
    """

    issuer: str
    claims: tuple[Claim, ...] = ()


ANONYMOUS = Caller(issuer="")


class Subject(Value, frozen=True, kw_only=True):
    """Where the tokens of an issuer say who bears them; path: of the claim."""

    issuer: str
    path: tuple[str, ...]


class RateLimit(Value, frozen=True, kw_only=True):
    """At most so many requests in so many seconds, counted by each gateway.

    by: `service`: all requests together; `user`: each user apart, as `users` tells them apart (all others together);
    `group`: those of `callers`, together.
    """

    requests: int
    seconds: int
    by: Literal["service", "user", "group"]
    users: tuple[Subject, ...] = ()
    callers: tuple[Caller, ...] = ()


class Access(Value, frozen=True, kw_only=True):
    """Nobody may call by default. callers: who may, unless authentication is `none`; sorted, each once."""

    authentication: Authentication = "required"
    callers: tuple[Caller, ...] = ()
    limits: tuple[RateLimit, ...] = ()


OPEN = Access(authentication="none")
"""Anybody may call, as often as they like."""
