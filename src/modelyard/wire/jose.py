"""JSON Web Tokens that we sign ourselves (ES256), as text.

Source: RFC 7515 (form and signature), RFC 7518 section 3.4, RFC 7519 (claims), RFC 7517 (public keys).
"""

import base64
import binascii
import hashlib
from typing import Any, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

LONGEST = 8192
"""Characters of a token that anybody reads."""
_HALF = 32
"""Bytes of each of the two numbers of a signature, and of each coordinate of a key."""


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """The name of a key: it follows from the key, so that nobody has to keep the two together."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """A key on the curve P-256 as a JSON Web Key."""
    numbers = key.public_numbers()
    x, y = (encoded(each.to_bytes(_HALF, "big")) for each in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": key_id(key), "alg": "ES256", "use": "sig"}


def signed(key: ec.EllipticCurvePrivateKey, claims: dict[str, Any]) -> str:
    """A token with these claims. key: on the curve P-256."""
    header = {"alg": "ES256", "kid": key_id(key.public_key()), "typ": "JWT"}
    body = f"{_part(header)}.{_part(claims)}"
    r, s = utils.decode_dss_signature(key.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{body}.{encoded(r.to_bytes(_HALF, 'big') + s.to_bytes(_HALF, 'big'))}"


def claims(token: str, key: ec.EllipticCurvePublicKey) -> dict[str, Any] | None:
    """What a token says that this key signed, be it expired or not; None for every other text."""
    body, _, signature = token.rpartition(".")
    header, dot, payload = body.partition(".")
    if len(token) > LONGEST or not dot:
        return None
    try:
        head, said = msgspec.json.decode(decoded(header)), msgspec.json.decode(decoded(payload))
        raw = decoded(signature)
        if not isinstance(head, dict) or head.get("alg") != "ES256" or len(raw) != 2 * _HALF:
            return None
        numbers = int.from_bytes(raw[:_HALF], "big"), int.from_bytes(raw[_HALF:], "big")
        key.verify(utils.encode_dss_signature(*numbers), body.encode(), ec.ECDSA(hashes.SHA256()))
    except (ValueError, msgspec.MsgspecError, InvalidSignature, RecursionError):
        return None
    return cast("dict[str, Any]", said) if isinstance(said, dict) else None


def encoded(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The inverse. Raises ValueError."""
    if "+" in text or "/" in text:  # Python takes those of plain base64 as well
        raise ValueError("not base64url")
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not base64url") from error


def _part(value: dict[str, Any]) -> str:
    return encoded(msgspec.json.encode(value))
