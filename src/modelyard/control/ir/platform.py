"""Platform: what holds for the gateway as a whole, in no proxy's words."""

from modelyard.control.ir.access import Authentication
from modelyard.control.ir.values import Value


class Issuer(Value, frozen=True, kw_only=True):
    """Whose tokens are believed.

    name: unique, of lower-case letters, digits and '-'. url: the claim `iss`. audiences: one of them must be in `aud`.
    username, groups: paths of the claims that tell them; prefix: of both, wherever people write them.
    verified: a claim that must be true, where an issuer lets users choose the name (`email_verified`).
    keys: a JSON Web Key Set as JSON; "" while none is known: no token of the issuer is accepted then.
    """

    name: str
    url: str
    audiences: tuple[str, ...]
    username: tuple[str, ...] = ("sub",)
    groups: tuple[str, ...] = ("groups",)
    prefix: str = ""
    verified: tuple[str, ...] = ()
    skew_seconds: int = 60
    keys: str = ""


class KeySource(Value, frozen=True, kw_only=True):
    """Where the keys of an issuer come from.

    jwks_uri: "": its discovery document at `url` says so. certificate_authority: PEM, "": those of this machine.
    """

    name: str
    url: str
    jwks_uri: str = ""
    certificate_authority: str = ""


class Tls(Value, frozen=True, kw_only=True):
    """What the public listener shows, as PEM. client_ca: who must have signed callers' certificates, "": nobody."""

    certificate: str
    key: str
    client_ca: str = ""

    def __repr__(self) -> str:
        return "Tls(...)"  # the key belongs into no log


class Tracing(Value, frozen=True, kw_only=True):
    """Where spans go (OTLP over gRPC, `host:port`), and how many of a hundred requests begin a trace."""

    address: str
    sample_percent: int = 100


class Platform(Value, frozen=True, kw_only=True):
    """Nobody is believed and everybody needs a token by default.

    authentication: for requests that no route answers. anonymous: whether a route may admit callers without a token at
    all. local_only: callers must name this machine as Host and come from no foreign web page; internal_is_local: so
    must those at the internal listener where anybody may be anonymous, since it is for this machine's programs.
    revoked: ids (`jti`) of tokens of the issuer OWN that are no longer valid. accounts: uids of all ServiceAccounts,
    sorted: tokens of others are no longer valid; None: that is not looked at. address: `https://host` by which callers
    reach the gateway; "": as it knows itself.
    """

    issuers: tuple[Issuer, ...] = ()
    revoked: tuple[str, ...] = ()
    accounts: tuple[str, ...] | None = None
    authentication: Authentication = "required"
    anonymous: bool = True
    local_only: bool = False
    internal_is_local: bool = True
    tls: Tls | None = None
    tracing: Tracing | None = None
    address: str = ""


OWN = "modelyard"
"""The issuer of people without one: `modelyard token create`."""
ACCOUNTS = "serviceaccounts"
"""The issuer of ServiceAccount tokens."""
ACCOUNT_UID = ("kubernetes.io", "serviceaccount", "uid")
"""Where such a token says of which account it is: one that was made again has another uid."""
