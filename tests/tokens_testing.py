"""Tokens for tests, good and bad: signed with RS256, ES256 or EdDSA, or with whatever an attacker would try."""

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from modelyard.control.ir.platform import Issuer

ALGORITHMS = ("RS256", "ES256", "EdDSA")
AUDIENCE = "models"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def encoded(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _number(value: int, size: int) -> str:
    return encoded(value.to_bytes(size, "big"))


class Signer:
    """A key with an id, as an issuer has it."""

    def __init__(self, algorithm: str, kid: str) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key: PrivateKey
        if algorithm == "RS256":
            self.key = rsa.generate_private_key(65537, 2048)
        elif algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()

    @property
    def public(self) -> dict[str, str]:
        """As a JSON Web Key."""
        about = {"kid": self.kid, "alg": self.algorithm, "use": "sig"}
        match self.key:
            case rsa.RSAPrivateKey():
                public = self.key.public_key().public_numbers()
                return about | {"kty": "RSA", "n": _number(public.n, 256), "e": _number(public.e, 3)}
            case ec.EllipticCurvePrivateKey():
                point = self.key.public_key().public_numbers()
                return about | {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
            case _:
                raw = self.key.public_key().public_bytes_raw()
                return about | {"kty": "OKP", "crv": "Ed25519", "x": encoded(raw)}

    @property
    def pem(self) -> bytes:
        """The public key: what HS256 confused with RS256 would take for a secret."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def sign(self, data: bytes) -> bytes:
        """As JSON Web Signatures have it."""
        match self.key:
            case rsa.RSAPrivateKey():
                return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePrivateKey():
                first, second = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
                return first.to_bytes(32, "big") + second.to_bytes(32, "big")
            case _:
                return self.key.sign(data)


@cache
def signer(algorithm: str = "ES256", kid: str = "one") -> Signer:
    """One for each name; keys of RSA take long to make."""
    return Signer(algorithm, kid)


def issuer(name: str, *signers: Signer, **fields: Any) -> Issuer:
    """An issuer that signs with these keys."""
    keys = json.dumps({"keys": [each.public for each in signers or (signer(kid=name),)]})
    return Issuer(name=name, url=f"https://{name}.example", audiences=(AUDIENCE,), keys=keys, **fields)


def claims(name: str, **others: Any) -> dict[str, Any]:
    """Of a token of such an issuer that is in order; a claim that is None is left out."""
    now = int(time.time())
    usual = {"iss": f"https://{name}.example", "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + 600}
    return {key: value for key, value in (usual | others).items() if value is not None}


def token(name: str, by: Signer | None = None, /, **others: Any) -> str:
    """A token of an issuer, signed by its own key or another one."""
    return signed(by or signer(kid=name), claims(name, **others))


def signed(by: Signer, body: dict[str, Any], **header: Any) -> str:
    """header: what differs from the usual one."""
    head = {"alg": by.algorithm, "kid": by.kid, "typ": "JWT"} | header
    data = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(body).encode())}"
    return f"{data}.{encoded(by.sign(data.encode()))}"


def unsigned(body: dict[str, Any], algorithm: str = "none", kid: str = "one") -> str:
    """A token that claims to need no signature."""
    head = {"alg": algorithm, "kid": kid, "typ": "JWT"}
    return f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(body).encode())}."


def confused(by: Signer, body: dict[str, Any]) -> str:
    """Signed with HS256 and the public key as the secret."""
    return symmetric(by.pem, by.kid, body)


def symmetric(secret: bytes, kid: str, body: dict[str, Any]) -> str:
    """Signed with HS256."""
    data = unsigned(body, "HS256", kid).rstrip(".")
    return f"{data}.{encoded(hmac.new(secret, data.encode(), hashlib.sha256).digest())}"
