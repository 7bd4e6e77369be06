"""A certificate authority of our own, and the server's certificate. Files are written with mode 0600 by replacing."""

import datetime
import ipaddress
import os
import secrets
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelyard.base.clock import Clock
from modelyard.base.errors import UserError

CA_CERTIFICATE = "ca.crt"
_CA_KEY = "ca.key"
_CERTIFICATE = "server.crt"
_KEY = "server.key"
_ALWAYS = ("localhost", "127.0.0.1", "::1")
_CA_DAYS = 3650
_DAYS = 365
_RENEW_DAYS = 30
_EARLIER = datetime.timedelta(hours=1)
"""Valid a little before now, for clocks that differ."""


def server_context(folder: Path, hosts: tuple[str, ...], clock: Clock) -> ssl.SSLContext:
    """The TLS context of a server under `hosts` and every name of this machine's loopback.

    Makes and renews what is needed in folder. Raises UserError when the files there cannot be read or written.
    """
    names = tuple(dict.fromkeys((*_ALWAYS, *hosts)))
    now = datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)
    try:
        authority, key = _authority(folder, now)
        if not _usable(folder, authority, names, now):
            _issue(folder, authority, key, names, now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(folder / _CERTIFICATE, folder / _KEY)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the certificates in {folder} cannot be used: {error}; remove {CA_CERTIFICATE}, {_CA_KEY}, {_CERTIFICATE} "
            f"and {_KEY} there to have new ones made"
        ) from error
    return context


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; only its owner may read it at any moment."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _authority(folder: Path, now: datetime.datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / CA_CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / _CA_KEY).read_bytes(), password=None)
        fits = isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
        if fits and now + datetime.timedelta(days=2 * _DAYS) < certificate.not_valid_after_utc:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return certificate, key
    except FileNotFoundError:
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "modelyard")])
    certificate = (
        _builder(name, name, key, now, _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / _CA_KEY, _pem(key))
    write_private(folder / CA_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _usable(folder: Path, authority: x509.Certificate, names: tuple[str, ...], now: datetime.datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE).read_bytes())
        certificate.verify_directly_issued_by(authority)
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    fresh = now + datetime.timedelta(days=_RENEW_DAYS) < certificate.not_valid_after_utc
    return fresh and (folder / _KEY).exists() and set(map(_name, names)) <= set(found)


def _issue(
    folder: Path,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    now: datetime.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "modelyard API server")])
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(subject, authority.subject, key, now, _DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    # The key first: a certificate without its key is noticed, and both are made again.
    (folder / _CERTIFICATE).unlink(missing_ok=True)
    write_private(folder / _KEY, _pem(key))
    write_private(folder / _CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
