"""AccessPolicy: who may call services, and how often. Roles with the verb `predict` say who; a policy tightens."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from modelyard.api import API_VERSION
from modelyard.api.fields import Conditions, Duration, Generation, Metadata, Name, Part, Word, rules

Authentication = Literal["none", "optional", "required"]
SUBJECT_PATTERN = r"^[^\x00-\x1f\x7f]+$"


class RateLimit(Part):
    """At most so many requests in a time."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("(self.by == 'group') == has(self.group)", "set group if, and only if, by is group"),
            (
                "duration(self.per) >= duration('1s') && duration(self.per) <= duration('24h')",
                "per must be from 1s to 24h",
            ),
        )
    )

    requests: Annotated[int, Field(ge=1, le=1_000_000_000, json_schema_extra={"format": "int64"})]
    """How many requests; further ones get 429 with Retry-After."""
    per: Duration
    """In which time: 1s to 24h, such as 1m."""
    by: Literal["service", "user", "group"]
    """Whose requests are counted together: all of a service; each user's; or those of one group."""
    group: Annotated[str, Field(min_length=1, max_length=253, pattern=SUBJECT_PATTERN)] | None = None
    """The group, as roles name it; its members share one count."""


class AccessPolicySpec(Part):
    """Which services, and what holds for them. Of several policies for one service the strictest counts."""

    services: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)] | None = None
    """Names of ModelServices in the same namespace; by default all of them."""
    authentication: Authentication | None = None
    """required: a token is needed. optional: who sends none is system:anonymous, and roles decide. none: anybody may
    call. Never less than the floor in the platform's settings; their default where no policy says anything."""
    issuers: Annotated[tuple[Word, ...], Field(min_length=1, max_length=32)] | None = None
    """Names of the issuers whose tokens count, of those in the platform's settings; modelyard and serviceaccounts are
    the built-in ones. By default all."""
    rate_limits: Annotated[tuple[RateLimit, ...], Field(min_length=1, max_length=16)] | None = None
    """Limits for each of the services, counted by each gateway."""


class AccessPolicyStatus(Part):
    """What became of the policy."""

    observed_generation: Generation | None = None
    """metadata.generation that this status was computed from."""
    services: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """How many services it is about."""
    conditions: Conditions | None = None
    """Ready: the policy is in force as it is written. Open: it lets callers in without a token."""


class AccessPolicy(Part):
    """An AccessPolicy says who may call services, and how often."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["AccessPolicy"] = "AccessPolicy"
    metadata: Metadata
    spec: AccessPolicySpec
    status: AccessPolicyStatus = AccessPolicyStatus()
