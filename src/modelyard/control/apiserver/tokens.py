"""Tokens of ServiceAccounts: JSON Web Tokens (RFC 7519) that this server signs with ES256 and nobody else can make.

Source: KEP-1205 (bound service account tokens) for the claims, RFC 7515 and 7518 for the form.
"""

import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.base.clock import Clock
from modelyard.base.errors import UserError
from modelyard.control.apiserver.certificates import write_private
from modelyard.wire import jose

ISSUER = "modelyard"
AUDIENCE = "modelyard"
_LEEWAY_SECONDS = 5


class Account(NamedTuple):
    """A ServiceAccount: its uid differs when it is deleted and made again."""

    namespace: str
    name: str
    uid: str


class Claims(NamedTuple):
    """What a token that is in order says. expires: seconds since 1970; id: of the token."""

    account: Account
    expires: float
    id: str


class _Named(msgspec.Struct):
    name: str
    uid: str


class _Kubernetes(msgspec.Struct):
    namespace: str
    serviceaccount: _Named


class _Payload(msgspec.Struct):
    iss: str
    aud: list[str]
    exp: int
    nbf: int
    jti: str
    account: _Kubernetes = msgspec.field(name="kubernetes.io")


class Tokens:
    """Issues and reads tokens. key: on the curve P-256."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._key = key
        self._public = key.public_key()
        self._clock = clock

    def issue(self, account: Account, audiences: list[str], seconds: int) -> tuple[str, int]:
        """A token and when it ends, in seconds since 1970. audiences empty: for this server."""
        now = int(self._clock.now())
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
            "aud": audiences or [AUDIENCE],
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": account.namespace,
                "serviceaccount": {"name": account.name, "uid": account.uid},
            },
        }
        return jose.signed(self._key, claims), now + seconds

    def read(self, token: str) -> Claims | None:
        """What a token says; None when it is not ours, not for this server, not yet or no more valid."""
        try:
            found = msgspec.convert(jose.claims(token, self._public), type=_Payload)
        except msgspec.ValidationError:
            return None
        now = self._clock.now()
        if found.iss != ISSUER or AUDIENCE not in found.aud or not found.nbf - _LEEWAY_SECONDS <= now < found.exp:
            return None
        named = found.account.serviceaccount
        return Claims(Account(found.account.namespace, named.name, named.uid), found.exp, found.jti)


def made() -> ec.EllipticCurvePrivateKey:
    """A new key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_in(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file of mode 0600, made when there is none. Raises UserError for a file that holds none."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
            return key
        raise ValueError("it holds another kind of key")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    key = made()
    try:
        write_private(
            path,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    except OSError as error:
        raise _unusable(path, error) from error
    return key


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the key {path} cannot be used: {error}; remove it to have a new one made (tokens of ServiceAccounts end then)"
    )
