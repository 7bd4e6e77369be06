import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire import jose, jwks

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()
P384 = ec.generate_private_key(ec.SECP384R1()).public_key()
P521 = ec.generate_private_key(ec.SECP521R1()).public_key()
ED = ed25519.Ed25519PrivateKey.generate().public_key()


def number(value: int) -> str:
    return jose.encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def rsa_key(key: rsa.RSAPublicKey = RSA, **more: Any) -> dict[str, Any]:
    numbers = key.public_numbers()
    return {"kty": "RSA", "kid": "r", "n": number(numbers.n), "e": number(numbers.e), **more}


def ec_key(key: ec.EllipticCurvePublicKey = P256, crv: Any = "P-256", **more: Any) -> dict[str, Any]:
    numbers = key.public_numbers()
    return {"kty": "EC", "kid": "e", "crv": crv, "x": number(numbers.x), "y": number(numbers.y), **more}


def ed_key(**more: Any) -> dict[str, Any]:
    return {"kty": "OKP", "kid": "o", "crv": "Ed25519", "x": jose.encoded(ED.public_bytes_raw()), **more}


def read(*keys: Any) -> jwks.Keys:
    return jwks.read(json.dumps({"keys": keys}).encode())


def test_sound_keys_are_kept_with_what_is_needed_of_them_and_nothing_else() -> None:
    found = read(rsa_key(x5c=["MII"], alg="PS256", foreign=1), ec_key(), ec_key(P384, "P-384", kid="f"), ed_key())
    first, second, third, fourth = json.loads(found.text)["keys"]
    assert first.keys() == {"kty", "kid", "use", "n", "e", "alg"}
    assert [each["alg"] for each in (first, second, third, fourth)] == ["PS256", "ES256", "ES384", "EdDSA"]
    assert found.ids == ("r", "e", "f", "o")
    assert not found.skipped


def test_a_key_without_an_id_or_an_algorithm_is_kept() -> None:
    key = rsa_key()
    del key["kid"]
    (kept,) = json.loads(read(key).text)["keys"]
    assert kept.keys() == {"kty", "use", "n", "e"}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, "expected kty RSA, EC or OKP, not 'oct'"),
        ({"kty": "none"}, "expected kty RSA, EC or OKP, not 'none'"),
        ({"kty": ["RSA"]}, "expected kty RSA, EC or OKP"),
        ("key", "it is no object"),
        (rsa_key(d="AQAB"), "a private key, which its issuer has published"),
        (ec_key(d="AQAB"), "a private key, which its issuer has published"),
        (rsa_key(use="enc"), "it is not for signatures"),
        (rsa_key(key_ops=["encrypt"]), "it is not for signatures"),
        (rsa_key(key_ops="verify"), "it is not for signatures"),
        (rsa_key(alg="HS256"), "expected alg RS256 to RS512 or PS256 to PS512, not 'HS256'"),
        (rsa_key(alg="none"), "expected alg RS256"),
        (rsa_key(WEAK), "it has 1024 bits; expected 2048 to 8192"),
        (rsa_key(e="AQ"), "its numbers are no RSA key"),
        (rsa_key(e="AQAA"), "its numbers are no RSA key"),
        (rsa_key(n="****"), "n is not base64url"),
        (rsa_key(n=17), "n is missing"),
        (rsa_key(kid=7), "expected kid to be text"),
        (rsa_key(kid="k" * 300), "expected kid to be text"),
        (ec_key(P521, "P-521"), "expected crv P-256 or P-384, not 'P-521'"),
        (ec_key(P256, "P-384"), "key 'e' is not used"),
        (ec_key(alg="ES384"), "expected alg ES256, not 'ES384'"),
        (ec_key(x="AQAB"), "key 'e' is not used"),
        (ec_key(crv=["P-256"]), "expected crv P-256 or P-384"),
        (ed_key(crv="X25519"), "expected crv Ed25519, not 'X25519'"),
        (ed_key(x="AQAB"), "key 'o' is not used"),
        (ed_key(alg="ES256"), "expected alg EdDSA"),
    ],
)
def test_a_key_that_could_let_others_sign_or_that_is_broken_is_left_out_and_the_others_are_kept(
    key: Any, why: str
) -> None:
    found = read(key, ec_key(kid="good"))
    assert found.ids == ("good",)
    (skipped,) = found.skipped
    assert why in skipped
    assert "c2VjcmV0" not in skipped
    with pytest.raises(ValueError, match="it has no key that can be used; key "):
        read(key)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "no key set"),
        (b'{"keys": {}}', "no key set"),
        (b'{"keys": []}', "no key that can be used"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (jwks.LARGEST_BYTES + 1), "more than 262144 bytes"),
        (json.dumps({"keys": [{}] * 65}).encode(), "it has 65 keys; at most 64 are read"),
    ],
)
def test_what_is_no_key_set_is_refused_with_a_reason(body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        jwks.read(body)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = ("kty", "kid", "use", "alg", "key_ops", "n", "e", "crv", "x", "y", "d", "k")
CHANGES = st.dictionaries(st.sampled_from(MEMBERS), ANY | st.sampled_from(("RSA", "oct", "sig", "ES256", "AQAB")))


@given(st.sampled_from((rsa_key(), ec_key(), ed_key())), CHANGES)
def test_whatever_a_key_says_it_is_kept_whole_or_left_out(key: dict[str, Any], changes: dict[str, Any]) -> None:
    kept = json.loads(read({**key, **changes}, ec_key(kid="good")).text)["keys"]
    assert kept[-1]["kid"] == "good"
    for each in kept[:-1]:
        assert each["kty"] in ("RSA", "EC", "OKP")
        assert each["use"] == "sig"
        assert not {"d", "k", "key_ops"} & each.keys()
        assert all(isinstance(value, str) for value in each.values())


@given(st.binary(max_size=200) | ANY.map(lambda value: json.dumps(value).encode()))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    try:
        found = jwks.read(body)
    except ValueError:
        return
    assert json.loads(found.text)["keys"]
