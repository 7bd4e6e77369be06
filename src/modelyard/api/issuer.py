"""Our own issuer, for people without one: what lies in the Secret `modelyard-issuer` of the system namespace.

Who may read that Secret can make tokens of anybody; roles guard it like every other Secret.
"""

import base64
import binascii
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.api.settings import NAMESPACE
from modelyard.base.errors import UserError
from modelyard.wire import jose, jwks

NAME = "modelyard-issuer"
SUBJECT = f"Secret {NAMESPACE}/{NAME}"
URL = "modelyard:users"
"""The claim `iss`."""
AUDIENCE = "modelyard"
MOST_REVOKED = 1000
MOST_PREVIOUS = 8
_KEY, _PREVIOUS, _REVOKED = "key.pem", "previous.json", "revoked.json"


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that signs no more. not_after: seconds since 1970; tokens that it signed count until then."""

    key: dict[str, str]
    not_after: float


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """A token that counts no more, by its id (`jti`). expires: seconds since 1970, when it ends by itself."""

    id: str
    expires: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnIssuer:
    """key: signs, on the curve P-256."""

    key: ec.EllipticCurvePrivateKey
    previous: tuple[Previous, ...] = ()
    revoked: tuple[Revoked, ...] = ()

    def keys(self, now: float) -> str:
        """The keys whose tokens count, as a JSON Web Key Set; the one that signs first."""
        kept = [jose.public_jwk(self.key.public_key()), *(each.key for each in self.previous if each.not_after > now)]
        # One key that the gateway cannot read would end the others, too.
        return jwks.read(msgspec.json.encode({"keys": kept})).text

    def pruned(self, now: float) -> "OwnIssuer":
        """Without what has ended by itself."""
        return replace(
            self,
            previous=tuple(each for each in self.previous if each.not_after > now),
            revoked=tuple(each for each in self.revoked if each.expires > now),
        )

    def next_end(self, now: float) -> float | None:
        """When the next of its parts ends by itself; None: none does."""
        ends = (*(each.not_after for each in self.previous), *(each.expires for each in self.revoked))
        return min((each for each in ends if each > now), default=None)


def rotated(issuer: OwnIssuer, key: ec.EllipticCurvePrivateKey, now: float, grace: float) -> OwnIssuer:
    """Another key signs; tokens of earlier ones count for so many seconds more, but never longer than they did."""
    if grace <= 0:
        return OwnIssuer(key=key)
    former = Previous(key=jose.public_jwk(issuer.key.public_key()), not_after=now + grace)
    kept = (_ending(each, now + grace) for each in issuer.pruned(now).previous)
    return replace(issuer.pruned(now), key=key, previous=(former, *kept)[:MOST_PREVIOUS])


def _ending(previous: Previous, latest: float) -> Previous:
    """The same key, until then at the latest."""
    return Previous(key=previous.key, not_after=min(previous.not_after, latest))


def revoking(issuer: OwnIssuer, token: Revoked, now: float) -> OwnIssuer:
    """Without that token. Raises UserError where too many are revoked already."""
    kept = tuple(each for each in issuer.pruned(now).revoked if each.id != token.id)
    if len(kept) >= MOST_REVOKED:
        raise UserError(
            f"{SUBJECT} lists {len(kept)} revoked tokens, and there is no room for more until some expire: "
            "'modelyard token rotate --grace 0' ends all tokens at once"
        )
    return replace(issuer.pruned(now), revoked=tuple(sorted((*kept, token), key=lambda each: (each.expires, each.id))))


def data(issuer: OwnIssuer) -> dict[str, str]:
    """`data` of the Secret."""
    pem = issuer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    parts = {_KEY: pem, _PREVIOUS: msgspec.json.encode(issuer.previous), _REVOKED: msgspec.json.encode(issuer.revoked)}
    return {name: base64.b64encode(each).decode() for name, each in parts.items()}


def secret(issuer: OwnIssuer) -> dict[str, Any]:
    """The Secret, whole."""
    metadata = {"name": NAME, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data(issuer)}


def read(body: dict[str, Any]) -> OwnIssuer:
    """From the Secret. Raises UserError that names the key of the Secret and the next step, never what it holds."""
    stored = body.get("data") or {}
    try:
        previous = msgspec.json.decode(_stored(stored, _PREVIOUS, b"[]"), type=tuple[Previous, ...])
        revoked = msgspec.json.decode(_stored(stored, _REVOKED, b"[]"), type=tuple[Revoked, ...])
    except msgspec.MsgspecError:
        raise _unusable(f"{_PREVIOUS} or {_REVOKED}", "expected what 'modelyard token' writes") from None
    if len(previous) > MOST_PREVIOUS or len(revoked) > MOST_REVOKED:
        raise _unusable(f"{_PREVIOUS} or {_REVOKED}", f"at most {MOST_PREVIOUS} keys and {MOST_REVOKED} tokens")
    return OwnIssuer(key=_private(_stored(stored, _KEY, b"")), previous=previous, revoked=revoked)


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _unusable(_KEY, "expected a private key in PEM on the curve P-256")
    return key


def _stored(stored: dict[str, Any], name: str, default: bytes) -> bytes:
    try:
        return base64.b64decode(stored[name], validate=True) if name in stored else default
    except (binascii.Error, TypeError, ValueError):
        raise _unusable(name, "expected base64") from None


def _unusable(key: str, expected: str) -> UserError:
    return UserError(
        f"{SUBJECT}: data[{key}] cannot be used: {expected}; no token of it counts until that is mended, or the Secret "
        "is deleted (a new one is made then, and earlier tokens end)"
    )
