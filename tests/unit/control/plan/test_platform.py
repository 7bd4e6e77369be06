import datetime
import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from modelyard.api import settings
from modelyard.control.ir.platform import Issuer, KeySource, Tls, Tracing
from modelyard.control.plan import platform
from modelyard.control.plan.platform import CLOSED, Ground, Standing, stand


def ground(text: str, *, loopback: bool = True, **more: Any) -> Ground:
    return Ground(settings=settings.parse(text), loopback=loopback, **more)


def gateway(text: str, *, loopback: bool) -> tuple[str, str, bool, bool]:
    """-> authentication, floor, whether anybody may come without a token, whether only local programs may."""
    found = stand(ground(f"gateway: {text}", loopback=loopback))[0]
    assert found.platform.authentication == found.authentication
    return found.authentication, found.floor, found.platform.anonymous, found.platform.local_only


@pytest.mark.parametrize(
    ("text", "on_loopback", "elsewhere"),
    [
        ("{}", ("none", "none", True, True), ("required", "required", False, False)),
        ("{floor: none}", ("none", "none", True, True), ("required", "none", True, False)),
        ("{floor: optional}", ("optional", "optional", True, True), ("required", "optional", True, False)),
        (
            "{authentication: required}",
            ("required", "required", False, False),
            ("required", "required", False, False),
        ),
        (
            "{authentication: required, floor: none}",
            ("required", "none", True, True),
            ("required", "none", True, False),
        ),
        ("{authentication: none}", ("none", "none", True, True), ("required", "none", True, False)),
        (
            "{authentication: none, floor: required}",
            ("required", "required", False, False),
            ("required", "required", False, False),
        ),
    ],
)
def test_a_service_is_open_by_itself_on_loopback_only(text: str, on_loopback: Any, elsewhere: Any) -> None:
    assert gateway(text, loopback=True) == on_loopback
    assert gateway(text, loopback=False) == elsewhere


def test_settings_that_would_open_everything_off_loopback_are_told_what_to_do_instead() -> None:
    _, problems = stand(ground("gateway: {authentication: optional}", loopback=False))
    assert problems == (
        "gateway.authentication: optional counts only where the gateway listens on loopback; here it is required, and "
        "an AccessPolicy with authentication: optional opens the services that it names",
    )


def test_settings_that_could_never_be_read_shut_everything_but_the_built_in_issuers() -> None:
    found, _ = stand(Ground(settings=None, own="{}", accounts="{}", revoked=("t",)))
    assert (found.authentication, found.floor) == ("required", "required")
    assert not found.platform.anonymous
    assert [each.name for each in found.platform.issuers] == ["modelyard", "serviceaccounts"]
    assert found.platform.revoked == ("t",)
    assert stand(Ground(settings=None, loopback=False))[0].platform.tls == CLOSED


def test_an_issuer_of_the_settings_keeps_its_claims_and_prefix_to_itself() -> None:
    text = """
issuers:
- {name: corp, url: "https://a.example", audiences: [m]}
- name: partner
  url: https://b.example/
  audiences: [m, n]
  prefix: "p#"
  clockSkew: 5s
  claims: {username: email, groups: [realm, roles]}
- {name: third, url: "https://c.example", audiences: [m], claims: {username: [user, email]}}
"""
    found, problems = stand(ground(text, keys={"corp": "KEYS"}))
    assert not problems
    assert found.platform.issuers[2:] == (
        Issuer(name="corp", url="https://a.example", audiences=("m",), prefix="corp:", keys="KEYS"),
        Issuer(
            name="partner",
            url="https://b.example/",
            audiences=("m", "n"),
            username=("email",),
            groups=("realm", "roles"),
            prefix="p#",
            verified=("email_verified",),
            skew_seconds=5,
        ),
        Issuer(
            name="third",
            url="https://c.example",
            audiences=("m",),
            username=("user", "email"),
            prefix="third:",
            verified=("user", "email_verified"),
        ),
    )


def test_a_clusters_own_issuer_counts_once_and_under_its_own_name() -> None:
    text = "issuers: [{name: k8s, url: 'https://k8s.example', audiences: [m]}]"
    found, problems = stand(ground(text, loopback=False, accounts="{}", accounts_url="https://k8s.example"))
    assert [(each.name, each.url) for each in found.platform.issuers] == [
        ("modelyard", "modelyard:users"),
        ("serviceaccounts", "https://k8s.example"),
    ]
    assert problems == (
        "issuers: https://k8s.example of k8s is the issuer of this cluster's ServiceAccounts, which is believed "
        "already (with audience modelyard); remove it from the settings",
    )


def test_where_keys_come_from_is_what_the_settings_say() -> None:
    text = "issuers: [{name: a, url: 'https://a', audiences: [m], jwksUri: 'https://k', certificateAuthority: PEM}]"
    (found,) = platform.sources(settings.parse(text))
    assert found == KeySource(name="a", url="https://a", jwks_uri="https://k", certificate_authority="PEM")
    assert platform.sources(None) == ()


def test_spans_go_where_the_settings_say() -> None:
    found, _ = stand(ground("gateway: {tracing: {address: 'localhost:4317', samplePercent: 5}}"))
    assert found.platform.tracing == Tracing(address="localhost:4317", sample_percent=5)


KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
PRIVATE, OTHER = (
    each.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for each in KEYS
)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "models.example")])
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
CERTIFICATE = (
    x509.CertificateBuilder(NAME, NAME, KEYS[0].public_key(), 1, START, START + datetime.timedelta(days=1))
    .sign(KEYS[0], hashes.SHA256())
    .public_bytes(serialization.Encoding.PEM)
)
TLS = "gateway: {tls: {secret: shown}}"
MUTUAL = "gateway: {tls: {secret: shown, clientCa: callers}}"
SHOWN = {"shown": {"tls.crt": CERTIFICATE, "tls.key": PRIVATE}}


def tls(text: str, secrets: dict[str, dict[str, bytes]], before: Tls | None = None) -> tuple[Tls | None, str]:
    found, problems = stand(ground(text, secrets=secrets, tls=before))
    return found.platform.tls, "\n".join(problems)


def test_certificates_come_from_the_secrets_that_the_settings_name() -> None:
    shown = Tls(certificate=CERTIFICATE.decode(), key=PRIVATE.decode())
    assert tls(TLS, SHOWN) == (shown, "")
    mutual, problems = tls(MUTUAL, {**SHOWN, "callers": {"ca.crt": CERTIFICATE}})
    assert (mutual, problems) == (Tls(certificate=shown.certificate, key=shown.key, client_ca=CERTIFICATE.decode()), "")
    assert platform.named_secrets(settings.parse(MUTUAL)) == ("shown", "callers")


@pytest.mark.parametrize(
    ("secrets", "why"),
    [
        ({}, "gateway.tls.secret: tls.crt of Secret modelyard-system/shown is missing; nobody can connect"),
        ({}, "gateway.tls.clientCa: ca.crt of Secret modelyard-system/callers is missing"),
        (
            {"shown": {"tls.crt": b"x", "tls.key": PRIVATE}},
            "tls.crt of Secret .*shown is no certificate",
        ),
        (
            {"shown": {"tls.crt": CERTIFICATE, "tls.key": b"x"}},
            "tls.key of Secret .*shown is no private",
        ),
        ({"shown": {"tls.crt": CERTIFICATE, "tls.key": OTHER}}, "tls.key .* is not the key of tls.crt"),
        ({"shown": {"tls.crt": CERTIFICATE}}, "tls.key of Secret modelyard-system/shown is missing"),
        ({**SHOWN, "callers": {"ca.crt": PRIVATE}}, "ca.crt of Secret modelyard-system/callers is no certificate"),
    ],
)
def test_without_a_good_certificate_nobody_can_connect_rather_than_in_plain_text(
    secrets: dict[str, dict[str, bytes]], why: str
) -> None:
    found, problems = tls(MUTUAL, secrets)
    assert found == CLOSED
    assert re.search(why, problems), problems
    assert "PRIVATE KEY" not in problems


def test_a_certificate_in_force_stays_while_its_secret_is_not_in_order() -> None:
    before = Tls(certificate="old", key="old")
    found, problems = tls(TLS, {}, before)
    assert found == before
    assert "is missing; what was shown before is still shown" in problems


def test_a_certificate_that_has_expired_does_not_replace_one_that_counts() -> None:
    late = START.timestamp() + 2 * 24 * 3600
    before = Tls(certificate="old", key="old")
    shown = Tls(certificate=CERTIFICATE.decode(), key=PRIVATE.decode())
    for tls_before, expected, said in (
        (before, before, "what was shown before is still shown"),
        (None, shown, "callers refuse it; renew it"),
        (CLOSED, shown, "callers refuse it; renew it"),
        (shown, shown, "callers refuse it; renew it"),
    ):
        found, problems = stand(ground(TLS, secrets=SHOWN, tls=tls_before, now=late))
        assert found.platform.tls == expected
        assert problems == (
            f"gateway.tls.secret: tls.crt of Secret modelyard-system/shown expired on 2026-01-02: {said}",
        )


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP224R1()),
        rsa.generate_private_key(65537, 1024),
    ],
)
def test_a_key_that_envoy_would_refuse_is_refused_with_what_it_may_be(key: Any) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    found, problems = tls(TLS, {"shown": {"tls.crt": CERTIFICATE, "tls.key": pem}})
    assert found == CLOSED
    assert "RSA from 2048 bits, P-256, P-384 or P-521" in problems


def test_keys_of_tls_are_in_no_log() -> None:
    found = stand(ground(TLS, secrets=SHOWN))[0]
    assert "PRIVATE" not in repr(found) + repr(ground(TLS, secrets=SHOWN))
    assert isinstance(found, Standing)


def test_the_settings_say_by_which_name_callers_come() -> None:
    found, problems = stand(ground("gateway: {address: 'https://models.example.com'}", loopback=False))
    assert (found.platform.address, problems) == ("https://models.example.com", ())
    assert stand(ground("{}"))[0].platform.address == ""
