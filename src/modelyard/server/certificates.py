"""The certificates of operator and gateways: what `plan.certificates` decides, made and kept in a Secret's data."""

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from modelyard.control.plan import certificates as plan
from modelyard.control.plan.certificates import Authorities, Change, Life

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
"""Keys of a Secret of type kubernetes.io/tls, and of what the other side must be signed by."""
_CURRENT, _NEXT, _FORMER = ("ca.crt", "ca.key"), ("next.crt", "next.key"), "former.crt"
_SWITCHED = "switched"
_EARLIER = datetime.timedelta(hours=1)
"""Valid a little before now, for clocks that differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Pair(...)"  # the key belongs into no log


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What lies in the Secret of the authorities. former: its certificate alone, it signs no more."""

    current: Pair | None = None
    next: Pair | None = None
    former: bytes = b""
    switched: float = 0.0

    @property
    def lives(self) -> Authorities:
        """What decisions are made from."""
        return Authorities(
            current=life(self.current.certificate) if self.current else None,
            next=life(self.next.certificate) if self.next else None,
            former=life(self.former) if self.former else None,
            switched=self.switched,
        )

    @property
    def bundle(self) -> bytes:
        """Who is trusted, the one that signs first."""
        pairs = (each.certificate for each in (self.current, self.next) if each)
        return b"".join(each.rstrip() + b"\n" for each in (*pairs, self.former) if each)


def read(data: Mapping[str, bytes]) -> Kept:
    """From the Secret's data. What cannot be used is as good as missing."""
    try:
        switched = float(data.get(_SWITCHED, b"0"))
    except ValueError:
        switched = 0.0
    former = data.get(_FORMER, b"")
    return Kept(
        current=_pair(data, *_CURRENT),
        next=_pair(data, *_NEXT),
        former=former if life(former) else b"",
        switched=switched,
    )


def data(kept: Kept) -> dict[str, bytes]:
    """The Secret's data."""
    found: dict[str, bytes] = {}
    for names, pair in ((_CURRENT, kept.current), (_NEXT, kept.next)):
        if pair is not None:
            found |= dict(zip(names, (pair.certificate, pair.key), strict=True))
    if kept.former:
        found |= {_FORMER: kept.former, _SWITCHED: str(kept.switched).encode()}
    return found


def advanced(kept: Kept, now: float) -> Kept:
    """With everything done about authorities that is due now."""
    while (step := plan.change(kept.lives, now)) is not None:
        match step:
            case Change.BEGIN:
                kept = Kept(current=_authority(now))
            case Change.PREPARE:
                kept = replace(kept, next=_authority(now))
            case Change.SWITCH:
                former = kept.current.certificate if kept.current else b""
                kept = Kept(current=kept.next, former=former, switched=now)
            case Change.FORGET:
                kept = replace(kept, former=b"", switched=0.0)
    return kept


def life(certificate: bytes, authorities: Iterable[bytes] = ()) -> Life | None:
    """Of a certificate in PEM, the first of them; None: it is none. authorities: who may have signed it."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = tuple(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns = ()
    except ValueError:
        return None
    return Life(
        id=_id(found),
        begins=found.not_valid_before_utc.timestamp(),
        ends=found.not_valid_after_utc.timestamp(),
        issuer=next((_id(each) for each in _loaded(authorities) if _signed(found, each)), ""),
        names=dns,
    )


def issue(authority: Pair, names: tuple[str, ...], now: float) -> Pair:
    """A leaf for both ends of a connection. names: the DNS names by which the other side knows it."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = _private(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    ends = min(now + plan.LEAF_SECONDS, issuer.not_valid_after_utc.timestamp())
    certificate = (
        _builder(names[0], issuer.subject, key, now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Pair(certificate=_pem(certificate), key=_private_pem(key))


def fits(pair: Pair) -> bool:
    """Whether it is a certificate and its own key."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        return _private(pair.key).public_key() == certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _authority(now: float) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities that have one name would be taken for each other: the moment makes them differ.
    name = f"modelyard gateway authority {int(now)}"
    certificate = (
        _builder(name, _name(name), key, now, now + plan.AUTHORITY_SECONDS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate=_pem(certificate), key=_private_pem(key))


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, ends: float
) -> x509.CertificateBuilder:
    begins = datetime.datetime.fromtimestamp(now, datetime.UTC) - _EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(datetime.datetime.fromtimestamp(ends, datetime.UTC))
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(data: Mapping[str, bytes], certificate: str, key: str) -> Pair | None:
    pair = Pair(certificate=data.get(certificate, b""), key=data.get(key, b""))
    return pair if fits(pair) else None


def _loaded(certificates: Iterable[bytes]) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(each) for each in certificates]


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _id(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError, TypeError, UnsupportedAlgorithm."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("expected a key on an elliptic curve")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
