"""An authority for tests, and certificates that it signs."""

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Pair(NamedTuple):
    """PEM."""

    certificate: str
    key: str


class Authority:
    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        certificate = (
            _builder(self._name, self._name, self._key, 1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = _pem(certificate)

    def sign(self, name: str, *, days: int = 1, hosts: tuple[str, ...] = ()) -> Pair:
        """For a server on this machine's loopback, and for a caller; or for these hosts alone.

        days: negative when it ended so long ago.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        here = (x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")))
        names: list[x509.GeneralName] = [*map(x509.DNSName, hosts)] if hosts else [*here]
        certificate = (
            _builder(_name(name), self._name, key, days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(_pem(certificate), private.decode())

    def context(self, shown: Pair | None = None, folder: Path | None = None) -> ssl.SSLContext:
        """Of a caller that trusts this authority alone. shown: its own certificate, by way of files in a folder."""
        found = ssl.create_default_context(cadata=self.pem)
        if shown is not None:
            assert folder is not None
            certificate, key = folder / "caller.crt", folder / "caller.key"
            certificate.write_text(shown.certificate)
            key.write_text(shown.key)
            found.load_cert_chain(certificate, key)
        return found


def server_context(pair: Pair, folder: Path, client_ca: str = "") -> ssl.SSLContext:
    """Of a server that shows the pair; client_ca: who must have signed callers' certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    path = folder / "server.pem"
    path.write_text(pair.certificate + pair.key)
    context.load_cert_chain(path)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca)
    return context


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
