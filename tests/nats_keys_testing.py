"""Keys, credentials and certificates for brokers in tests."""

import base64
import datetime
import hashlib
import ipaddress
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import nkeys  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """An NKey: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth."""

    seed: str
    public: str

    @classmethod
    def new(cls, kind: int) -> "Pair":
        seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
        return cls(seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode())

    def sign(self, data: bytes) -> bytes:
        signature: bytes = nkeys.from_seed(bytearray(self.seed.encode())).sign(data)
        return signature


def user() -> Pair:
    return Pair.new(nkeys.PREFIX_BYTE_USER)


def jwt(issuer: Pair, subject: str, name: str, claims: dict[str, Any]) -> str:
    """As nsc makes them: https://docs.nats.io/running-a-nats-service/nats_admin/security/jwt."""
    body = {"iat": int(time.time()), "iss": issuer.public, "sub": subject, "name": name, "nats": claims}
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(body)}"
    return f"{signed}.{_text(issuer.sign(signed.encode()))}"


@dataclass(frozen=True)
class Operated:
    """options: of a server in operator mode with one account. creds: of its user."""

    options: str
    creds: str

    @classmethod
    def new(cls) -> "Operated":
        operator = Pair.new(nkeys.PREFIX_BYTE_OPERATOR)
        account, system = Pair.new(nkeys.PREFIX_BYTE_ACCOUNT), Pair.new(nkeys.PREFIX_BYTE_ACCOUNT)
        one = user()
        unlimited = dict.fromkeys(
            ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams",
             "consumer"), -1
        )  # fmt: skip
        operator_jwt = jwt(operator, operator.public, "operator", {"type": "operator", "version": 2})
        account_jwt = jwt(
            operator,
            account.public,
            "account",
            {"type": "account", "version": 2, "limits": {**unlimited, "wildcards": True}, "default_permissions": {}},
        )
        system_jwt = jwt(
            operator,
            system.public,
            "system",
            {"type": "account", "version": 2, "limits": dict.fromkeys(("subs", "data", "payload", "conn"), -1)},
        )
        user_jwt = jwt(
            account,
            one.public,
            "user",
            {"type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1},
        )
        options = (
            f"operator: {operator_jwt}\nsystem_account: {system.public}\nresolver: MEMORY\n"
            f"resolver_preload: {{\n {account.public}: {account_jwt}\n {system.public}: {system_jwt}\n}}\n"
        )
        creds = (
            f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n"
            f"-----BEGIN USER NKEY SEED-----\n{one.seed}\n------END USER NKEY SEED------\n"
        )
        return cls(options, creds)


@dataclass(frozen=True)
class Signed:
    """A certificate with its key, in PEM."""

    crt: str
    key: str


class Authority:
    """A CA of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of the tests")])
        self._certificate = self._signed(self._name, self._key.public_key(), ca=True)

    @property
    def crt(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def sign(self, name: str) -> Signed:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        found = self._signed(subject, key.public_key(), ca=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Signed(found.public_bytes(serialization.Encoding.PEM).decode(), private.decode())

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


def _part(value: dict[str, Any]) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
