"""Which keys of an issuer are believed: a JSON Web Key Set in, one with nothing but sound public keys out.

A key that could let anybody sign is left out: symmetric ones (whoever checks could also sign), private ones (they have
been published), weak ones, and those that are for something else.
Source: RFC 7517, RFC 7518 section 6, RFC 8037 section 2.
"""

from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from modelyard.wire import jose

LARGEST_BYTES = 256 * 1024
MOST_KEYS = 64
_LONGEST_ID = 256
_RSA_BITS = (2048, 8192)
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
}
_SECRET_PARTS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class Keys(NamedTuple):
    """text: the set as JSON, with sound keys only. skipped: why others were left out, a sentence each."""

    text: str
    ids: tuple[str, ...]
    skipped: tuple[str, ...]


def read(body: bytes) -> Keys:
    """Raises ValueError where there is no key set, or no key in it that is believed."""
    if len(body) > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no key set: expected an object with a list named keys")
    if len(listed) > MOST_KEYS:
        raise ValueError(f"it has {len(listed)} keys; at most {MOST_KEYS} are read")
    kept, skipped = [], []
    for number, each in enumerate(listed):
        try:
            kept.append(_sound(each))
        except ValueError as error:
            skipped.append(f"key {_called(each, number)} is not used: {error}")
    if not kept:
        raise ValueError("it has no key that can be used" + "".join(f"; {why}" for why in skipped[:3]))
    text = msgspec.json.encode({"keys": kept}).decode()
    return Keys(text, tuple(each["kid"] for each in kept if "kid" in each), tuple(skipped))


def _sound(key: Any) -> dict[str, str]:
    """The key with the members that are needed, and no others. Raises ValueError with why it is not used."""
    if not isinstance(key, dict):
        raise ValueError("it is no object")
    kind, use, operations = key.get("kty"), key.get("use", "sig"), key.get("key_ops", ["verify"])
    if kind not in ("RSA", "EC", "OKP"):
        raise ValueError(f"expected kty RSA, EC or OKP, not {_shown(kind)}")
    if _SECRET_PARTS & key.keys():
        raise ValueError("it is a private key, which its issuer has published")
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("it is not for signatures")
    kid = key.get("kid", "")
    if not isinstance(kid, str) or len(kid) > _LONGEST_ID:
        raise ValueError(f"expected kid to be text of at most {_LONGEST_ID} characters")
    members = {"RSA": _rsa, "EC": _elliptic, "OKP": _edwards}[kind](key)
    return {"kty": kind, **({"kid": kid} if kid else {}), "use": "sig", **members}


def _rsa(key: dict[str, Any]) -> dict[str, str]:
    modulus, exponent = _number(key, "n"), _number(key, "e")
    bits = modulus.bit_length()
    if not _RSA_BITS[0] <= bits <= _RSA_BITS[1]:
        raise ValueError(f"it has {bits} bits; expected {_RSA_BITS[0]} to {_RSA_BITS[1]}")
    if not 3 <= exponent < 2**32 or exponent % 2 == 0 or modulus % 2 == 0:
        raise ValueError("its numbers are no RSA key")
    rsa.RSAPublicNumbers(exponent, modulus).public_key()
    algorithm = key.get("alg")
    if algorithm is not None and algorithm not in _RSA_ALGORITHMS:
        raise ValueError(f"expected alg RS256 to RS512 or PS256 to PS512, not {_shown(algorithm)}")
    return {"n": key["n"], "e": key["e"], **({"alg": algorithm} if algorithm else {})}


def _elliptic(key: dict[str, Any]) -> dict[str, str]:
    name = key.get("crv")
    if not isinstance(name, str) or name not in _CURVES:
        raise ValueError(f"expected crv {' or '.join(_CURVES)}, not {_shown(name)}")
    curve, algorithm = _CURVES[name]
    _same_algorithm(key, algorithm)
    ec.EllipticCurvePublicNumbers(_number(key, "x"), _number(key, "y"), curve).public_key()
    return {"crv": name, "x": key["x"], "y": key["y"], "alg": algorithm}


def _edwards(key: dict[str, Any]) -> dict[str, str]:
    if key.get("crv") != "Ed25519":
        raise ValueError(f"expected crv Ed25519, not {_shown(key.get('crv'))}")
    _same_algorithm(key, "EdDSA")
    raw = _bytes(key, "x")
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except UnsupportedAlgorithm as error:
        raise ValueError("Ed25519 is not supported here") from error
    return {"crv": "Ed25519", "x": key["x"], "alg": "EdDSA"}


def _same_algorithm(key: dict[str, Any], expected: str) -> None:
    if key.get("alg", expected) != expected:
        raise ValueError(f"expected alg {expected}, not {_shown(key['alg'])}")


def _number(key: dict[str, Any], member: str) -> int:
    return int.from_bytes(_bytes(key, member), "big")


def _bytes(key: dict[str, Any], member: str) -> bytes:
    text = key.get(member)
    if not isinstance(text, str) or not text:
        raise ValueError(f"{member} is missing")
    try:
        return jose.decoded(text)
    except ValueError as error:
        raise ValueError(f"{member} is {error}") from error


def _called(key: Any, number: int) -> str:
    kid = key.get("kid") if isinstance(key, dict) else None
    return _shown(kid) if isinstance(kid, str) and kid else f"number {number + 1}"


def _shown(value: Any) -> str:
    """Of a foreign value, as much as fits into a sentence."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
