import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from modelyard.api import issuer
from modelyard.api.issuer import OwnIssuer, Revoked
from modelyard.base.errors import UserError
from modelyard.wire import jose, jwks

KEY, SECOND, THIRD = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
NOW = 1_800_000_000.0
BEGUN = OwnIssuer(key=KEY)


def ids(found: OwnIssuer, now: float = NOW) -> list[str]:
    return [each["kid"] for each in json.loads(found.keys(now))["keys"]]


def kid(key: ec.EllipticCurvePrivateKey) -> str:
    return jose.key_id(key.public_key())


def test_the_secret_brings_back_what_was_put_into_it() -> None:
    full = issuer.revoking(issuer.rotated(BEGUN, SECOND, NOW, 60.0), Revoked(id="t", expires=NOW + 5), NOW)
    found = issuer.read(issuer.secret(full))
    assert (found.previous, found.revoked, ids(found)) == (full.previous, full.revoked, ids(full))


def test_its_public_keys_are_ones_that_are_believed_and_say_nothing_secret() -> None:
    full = issuer.rotated(BEGUN, SECOND, NOW, 60.0)
    assert jwks.read(full.keys(NOW).encode()).ids == (kid(SECOND), kid(KEY))
    assert '"d"' not in full.keys(NOW)


def test_after_a_rotation_the_earlier_key_counts_until_its_grace_is_over() -> None:
    found = issuer.rotated(BEGUN, SECOND, NOW, 60.0)
    assert ids(found, NOW + 59) == [kid(SECOND), kid(KEY)]
    assert ids(found, NOW + 60) == [kid(SECOND)]
    assert found.next_end(NOW) == NOW + 60
    assert found.next_end(NOW + 60) is None


def test_a_later_rotation_never_makes_an_earlier_key_count_for_longer() -> None:
    twice = issuer.rotated(issuer.rotated(BEGUN, SECOND, NOW, 60.0), THIRD, NOW + 30, 600.0)
    assert ids(twice, NOW + 61) == [kid(THIRD), kid(SECOND)]
    shorter = issuer.rotated(issuer.rotated(BEGUN, SECOND, NOW, 600.0), THIRD, NOW, 60.0)
    assert ids(shorter, NOW + 61) == [kid(THIRD)]


def test_without_grace_nothing_of_before_counts() -> None:
    found = issuer.rotated(issuer.rotated(BEGUN, SECOND, NOW, 600.0), THIRD, NOW, 0.0)
    assert ids(found) == [kid(THIRD)]


def test_a_revoked_token_is_remembered_once_until_it_expires() -> None:
    found = issuer.revoking(BEGUN, Revoked(id="a", expires=NOW + 60), NOW)
    found = issuer.revoking(found, Revoked(id="a", expires=NOW + 60), NOW)
    assert [each.id for each in found.pruned(NOW + 59).revoked] == ["a"]
    assert not found.pruned(NOW + 60).revoked


def test_a_full_list_of_revoked_tokens_says_what_to_do() -> None:
    full = replace(BEGUN, revoked=tuple(Revoked(id=f"{each}", expires=NOW + 60) for each in range(1000)))
    with pytest.raises(UserError, match=r"lists 1000 revoked tokens.*rotate --grace 0"):
        issuer.revoking(full, Revoked(id="one more", expires=NOW + 60), NOW)
    assert len(issuer.revoking(full, Revoked(id="one more", expires=NOW + 90), NOW + 61).revoked) == 1


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("key", "content", "expected"),
    [
        ("key.pem", "****", "expected base64"),
        ("key.pem", encoded(b"no PEM"), "expected a private key in PEM on the curve P-256"),
        ("previous.json", encoded(b"[1]"), "expected what 'modelyard token' writes"),
        ("revoked.json", encoded(b"{"), "expected what 'modelyard token' writes"),
        ("revoked.json", encoded(b'[{"id": 5}]'), "expected what 'modelyard token' writes"),
        ("revoked.json", 5, "expected base64"),
    ],
)
def test_a_secret_that_cannot_be_read_says_which_key_of_it_and_nothing_of_what_it_holds(
    key: str, content: object, expected: str
) -> None:
    body = issuer.secret(BEGUN)
    body["data"][key] = content
    with pytest.raises(UserError, match=expected) as told:
        issuer.read(body)
    assert key in told.value.message
    assert "BEGIN" not in told.value.message
    assert not told.value.__cause__


def test_a_key_of_another_kind_is_refused() -> None:
    body = issuer.secret(BEGUN)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    body["data"]["key.pem"] = encoded(pem)
    with pytest.raises(UserError, match="on the curve P-256"):
        issuer.read(body)
