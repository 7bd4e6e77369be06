"""Settings of the platform: the key `settings.yaml` of the ConfigMap `modelyard` in the system namespace."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, model_validator

from modelyard.api import load
from modelyard.api.access import Authentication
from modelyard.api.fields import Duration, Name, Part, Word
from modelyard.base import durations
from modelyard.base.errors import InvalidFields, UserError

NAMESPACE = "modelyard-system"
NAME = "modelyard"
KEY = "settings.yaml"
SUBJECT = f"ConfigMap {NAMESPACE}/{NAME}"
BUILT_IN_ISSUERS = ("modelyard", "serviceaccounts")
_LONGEST_SKEW_SECONDS = 300
_LOOPBACK = ("http://127.0.0.1", "http://localhost", "http://[::1]")


def _is_secure(url: str) -> str:
    if "@" in url.split("/", 3)[2]:
        raise ValueError("expected no user name in it")
    if not url.startswith("https://") and not any(
        url == each or url.startswith((each + ":", each + "/")) for each in _LOOPBACK
    ):
        raise ValueError("expected https://, or http:// on a loopback address")
    return url


def _is_short(skew: str) -> str:
    if durations.parse(skew) > _LONGEST_SKEW_SECONDS:
        raise ValueError(f"must not exceed {_LONGEST_SKEW_SECONDS} seconds")
    return skew


Url = Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s]+$"), AfterValidator(_is_secure)]
Prefix = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
ClaimPath = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(min_length=1, max_length=8)
]
ClaimName = Annotated[str, Field(min_length=1, max_length=253)] | ClaimPath


class Claims(Part):
    """Which claims of a token tell who bears it."""

    username: ClaimName = "sub"
    """Name of the claim, or a list of names from the top down. `email` counts only with `email_verified: true`."""
    groups: ClaimName = "groups"
    """In the same way; a list of names, or one name."""


class Issuer(Part):
    """An OpenID provider whose tokens are believed."""

    name: Annotated[Word, Field(max_length=32)]
    """Short and unique; AccessPolicies name it."""
    url: Url
    """The issuer as its tokens spell it (`iss`); discovery is at <url>/.well-known/openid-configuration."""
    audiences: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(min_length=1, max_length=8)
    ]
    """One of them must be in a token's `aud`."""
    jwks_uri: Url | None = None
    """Where its keys are, for issuers without discovery."""
    prefix: Prefix | None = None
    """What user and group names of its tokens begin with in roles; <name>: by default. No two may begin alike."""
    claims: Claims = Claims()
    """Which claims tell user and groups."""
    clock_skew: Annotated[Duration, AfterValidator(_is_short)] = "60s"
    """How much its clock may differ from ours."""
    certificate_authority: Annotated[str, Field(max_length=65536)] | None = None
    """PEM text of the authorities that sign its TLS certificate; those of this machine by default."""

    @property
    def subject_prefix(self) -> str:
        """prefix, or its default."""
        return self.prefix or f"{self.name}:"


class TlsSettings(Part):
    """TLS of the public listener."""

    secret: Name
    """Secret of type kubernetes.io/tls in the system namespace: tls.crt and tls.key. A change is taken up at once."""
    client_ca: Name | None = None
    """Secret in the system namespace with ca.crt: callers must show a certificate that it signed (mTLS)."""


class TracingSettings(Part):
    """Where spans go."""

    address: Annotated[str, Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$|^\[[0-9a-fA-F:]+\]:[0-9]{1,5}$", max_length=253)]
    """host:port of an OpenTelemetry collector (OTLP over gRPC)."""
    sample_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """How many of a hundred requests without trace context begin a trace."""


class GatewaySettings(Part):
    """The gateway."""

    authentication: Authentication | None = None
    """What holds for services about which no AccessPolicy says anything. By default required, and none on a laptop
    whose gateway listens on loopback."""
    floor: Authentication | None = None
    """The least that an AccessPolicy may ask for. By default what `authentication` is."""
    address: Annotated[str, Field(max_length=300, pattern=r"^https?://[^\s/?#@]+$")] | None = None
    """How callers outside reach it, for example https://models.example.com: it is what status.url begins with. By
    default the name of its Service within the cluster. Without effect on one machine."""
    tls: TlsSettings | None = None
    """TLS of the public listener; without it callers speak plain HTTP."""
    tracing: TracingSettings | None = None
    """Export of spans."""


class ModelStore(Part):
    """Where people put artifacts that lie on their machines."""

    uri: Annotated[str, Field(max_length=2048, pattern=r"^(s3|gs|az)://[^\s?#]+$")]
    """A prefix of its own, for example s3://models/pushed: modelyard push writes there, under the digest of what it
    writes."""


class Settings(Part):
    """What holds for the whole platform. Tenants select and tighten; they never widen."""

    issuers: Annotated[tuple[Issuer, ...], Field(max_length=32)] = ()
    """OpenID providers whose tokens are believed, besides the built-in modelyard and serviceaccounts."""
    gateway: GatewaySettings = GatewaySettings()
    """The gateway."""
    model_store: ModelStore | None = None
    """Where modelyard push writes to when it is not told."""

    @model_validator(mode="after")
    def _issuers_are_apart(self) -> "Settings":
        names, urls, prefixes = set(BUILT_IN_ISSUERS), set(), list[str]()
        for each in self.issuers:
            if each.name in names:
                raise ValueError(f"issuers: the name {each.name!r} is taken; give each issuer another one")
            if each.url in urls:
                raise ValueError(f"issuers: {each.url} is given twice; give each issuer once")
            prefix = each.subject_prefix
            if prefix.startswith("system:") or "system:".startswith(prefix):
                raise ValueError(f"issuers: the prefix {prefix!r} of {each.name} is the system's; choose another one")
            if clash := next((p for p in prefixes if p.startswith(prefix) or prefix.startswith(p)), None):
                raise ValueError(f"issuers: the prefixes {clash!r} and {prefix!r} begin alike; choose others")
            names.add(each.name)
            urls.add(each.url)
            prefixes.append(prefix)
        return self


def parse(text: str) -> Settings:
    """Settings from YAML; "" gives the defaults. Raises UserError or InvalidFields, which names all violated fields."""
    documents = load.parse(text, SUBJECT)
    if len(documents) > 1:
        raise UserError(f"{SUBJECT}: expected one YAML document in {KEY}")
    body: dict[str, Any] = documents[0].body if documents else {}
    try:
        return Settings.model_validate(body)
    except ValidationError as error:
        raise InvalidFields(SUBJECT, load.field_errors(error)) from error


Strictness: dict[Authentication, int] = {"none": 0, "optional": 1, "required": 2}
"""The order of strictness."""


def stricter(*given: Authentication) -> Authentication:
    """The strictest of them."""
    return max(given, key=Strictness.__getitem__)
