"""What holds for the gateway as a whole: the platform's settings, and what the place gives by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from modelyard.api import issuer as own_issuer
from modelyard.api import settings as given
from modelyard.api.settings import Settings
from modelyard.base import durations
from modelyard.control.ir.access import Authentication
from modelyard.control.ir.platform import ACCOUNTS, OWN, Issuer, KeySource, Platform, Tls, Tracing

ACCOUNTS_URL = "modelyard"
"""`iss` of ServiceAccount tokens of the embedded API server."""
_CERTIFICATE, _KEY, _AUTHORITY = "tls.crt", "tls.key", "ca.crt"
_LEAST_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
CLOSED = Tls(certificate="", key="")
"""TLS is wanted, and there is no certificate for it: nobody can connect, which is better than in plain text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """platform: for the gateway. authentication: of services about which no AccessPolicy says anything.

    floor: the least that an AccessPolicy gets.
    """

    platform: Platform
    authentication: Authentication
    floor: Authentication


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a standing is made of.

    settings: None while none could ever be read. loopback: whether only this machine reaches the gateway.
    keys: key sets of the issuers of the settings, by name, as far as known. own, accounts: key sets of the built-in
    issuers, "" where there is none. accounts_url: `iss` of ServiceAccount tokens. secrets: data of those Secrets of the
    system namespace that settings name. tls: what was in force while the settings asked for the same; it stays while
    the Secrets are not in order. now: seconds since 1970.
    """

    settings: Settings | None = Settings()
    loopback: bool = True
    keys: Mapping[str, str] = field(default_factory=dict)
    own: str = ""
    accounts: str = ""
    accounts_url: str = ACCOUNTS_URL
    revoked: tuple[str, ...] = ()
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    tls: Tls | None = None
    now: float = 0.0


def stand(ground: Ground) -> tuple[Standing, tuple[str, ...]]:
    """-> what holds, and what is wrong about it, a sentence each.

    Without settings nobody outside is believed and everybody needs a token: what was opened by settings stays shut when
    they cannot be read.
    """
    settings = ground.settings
    if settings is None:
        return _shut(ground), ()
    authentication, floor, problems = _authentication(settings, loopback=ground.loopback)
    tls, missing = _tls(settings, ground)
    issuers, doubled = _issuers(settings, ground)
    platform = Platform(
        issuers=(*_built_in(ground), *issuers),
        revoked=tuple(sorted(ground.revoked)),
        authentication=authentication,
        anonymous=floor != "required",
        # Where a token is always needed a foreign page cannot call, and callers may come by any name.
        local_only=ground.loopback and floor != "required",
        tls=tls,
        tracing=_tracing(settings),
        address=settings.gateway.address or "",
    )
    return Standing(platform=platform, authentication=authentication, floor=floor), (*problems, *doubled, *missing)


def sources(settings: Settings | None) -> tuple[KeySource, ...]:
    """Where the keys of the issuers of the settings come from."""
    return tuple(
        KeySource(
            name=each.name,
            url=each.url,
            jwks_uri=each.jwks_uri or "",
            certificate_authority=each.certificate_authority or "",
        )
        for each in (settings.issuers if settings else ())
    )


def named_secrets(settings: Settings | None) -> tuple[str, ...]:
    """The Secrets of the system namespace that the settings name."""
    tls = settings.gateway.tls if settings else None
    return tuple(each for each in (tls.secret, tls.client_ca) if each) if tls else ()


def _shut(ground: Ground) -> Standing:
    """On loopback the owner can still call with a token; elsewhere TLS may have been asked for."""
    platform = Platform(
        issuers=_built_in(ground),
        revoked=tuple(sorted(ground.revoked)),
        anonymous=False,
        tls=None if ground.loopback else CLOSED,
    )
    return Standing(platform=platform, authentication="required", floor="required")


def _authentication(settings: Settings, *, loopback: bool) -> tuple[Authentication, Authentication, tuple[str, ...]]:
    """-> authentication, floor, problems. Off loopback, what opens a service takes both the floor and a policy."""
    gateway = settings.gateway
    usual: Authentication = "none" if loopback else "required"
    floor = gateway.floor or gateway.authentication or usual
    authentication = given.stricter(gateway.authentication or usual, floor)
    if loopback or authentication == "required":
        return authentication, floor, ()
    return (
        "required",
        floor,
        (
            f"gateway.authentication: {gateway.authentication} counts only where the gateway listens on loopback; here "
            f"it is required, and an AccessPolicy with authentication: {floor} opens the services that it names",
        ),
    )


def _built_in(ground: Ground) -> tuple[Issuer, ...]:
    return (
        Issuer(name=OWN, url=own_issuer.URL, audiences=(own_issuer.AUDIENCE,), keys=ground.own),
        Issuer(name=ACCOUNTS, url=ground.accounts_url, audiences=(own_issuer.AUDIENCE,), keys=ground.accounts),
    )


def _issuers(settings: Settings, ground: Ground) -> tuple[list[Issuer], list[str]]:
    """Those of the settings, and what is wrong about them."""
    found, problems = [], []
    for each in settings.issuers:
        if each.url == ground.accounts_url:
            problems.append(
                f"issuers: {each.url} of {each.name} is the issuer of this cluster's ServiceAccounts, which is "
                f"believed already (with audience {own_issuer.AUDIENCE}); remove it from the settings"
            )
        else:
            found.append(_issuer(each, ground.keys.get(each.name, "")))
    return found, problems


def _issuer(issuer: given.Issuer, keys: str) -> Issuer:
    claims = issuer.claims
    username = _path(claims.username)
    return Issuer(
        name=issuer.name,
        url=issuer.url,
        audiences=issuer.audiences,
        username=username,
        groups=_path(claims.groups),
        prefix=issuer.subject_prefix,
        verified=(*username[:-1], "email_verified") if username[-1] == "email" else (),
        skew_seconds=int(durations.parse(issuer.clock_skew)),
        keys=keys,
    )


def _path(claim: str | tuple[str, ...]) -> tuple[str, ...]:
    return (claim,) if isinstance(claim, str) else claim


def _tracing(settings: Settings) -> Tracing | None:
    wanted = settings.gateway.tracing
    return None if wanted is None else Tracing(address=wanted.address, sample_percent=wanted.sample_percent)


def _tls(settings: Settings, ground: Ground) -> tuple[Tls | None, tuple[str, ...]]:
    wanted = settings.gateway.tls
    if wanted is None:
        return None, ()
    parts = [("secret", wanted.secret, _CERTIFICATE), ("secret", wanted.secret, _KEY)]
    if wanted.client_ca:
        parts.append(("clientCa", wanted.client_ca, _AUTHORITY))
    found = {key: ground.secrets.get(secret, {}).get(key, b"") for _, secret, key in parts}
    problems = [
        f"gateway.tls.{path}: {key} of Secret {given.NAMESPACE}/{secret} {why}"
        for path, secret, key in parts
        if (why := _fault(key, found))
    ]
    if problems:
        instead = "what was shown before is still shown" if ground.tls else "nobody can connect until it is mended"
        return ground.tls or CLOSED, tuple(f"{each}; {instead}" for each in problems)
    certificate, private, authority = (found.get(each, b"").decode() for each in (_CERTIFICATE, _KEY, _AUTHORITY))
    tls = Tls(certificate=certificate, key=private, client_ca=authority)
    end = _certificates(found[_CERTIFICATE])[0].not_valid_after_utc
    if end.timestamp() > ground.now:
        return tls, ()
    stays = ground.tls is not None and ground.tls.certificate not in ("", certificate)
    problem = (
        f"gateway.tls.secret: {_CERTIFICATE} of Secret {given.NAMESPACE}/{wanted.secret} expired on {end:%Y-%m-%d}: "
        + ("what was shown before is still shown" if stays else "callers refuse it; renew it")
    )
    return ground.tls if stays else tls, (problem,)


def _fault(name: str, parts: Mapping[str, bytes]) -> str:
    """What is wrong with one part of a Secret, or ""."""
    content = parts[name]
    if not content:
        return "is missing"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "is not text in UTF-8; remove what stands beside the PEM blocks"
    if name != _KEY:
        return "" if _certificates(content) else "is no certificate in PEM"
    try:
        key = serialization.load_pem_private_key(content, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "is no private key in PEM without a password"
    if not (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    ):
        return f"is of a kind that the gateway cannot use: RSA from {_LEAST_RSA_BITS} bits, P-256, P-384 or P-521"
    shown = _certificates(parts[_CERTIFICATE])
    return "" if not shown or shown[0].public_key() == key else f"is not the key of {_CERTIFICATE}"


def _certificates(content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        return []
