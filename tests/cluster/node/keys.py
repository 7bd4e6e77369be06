"""The cluster's certificates and kubeconfigs, as kubeadm would make them.

Source of the names: https://kubernetes.io/docs/setup/best-practices/certificates/
"""

import base64
import datetime
import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USERS = {
    "admin": ("system:masters", "admin"),
    "controller-manager": ("", "system:kube-controller-manager"),
    "scheduler": ("", "system:kube-scheduler"),
    "proxy": ("", "system:kube-proxy"),
    "node": ("system:nodes", "system:node:testnode"),
    "kubelet-client": ("system:masters", "kube-apiserver-kubelet-client"),
    "front-proxy-client": ("", "front-proxy-client"),
    "apiserver": ("", "kube-apiserver"),
}
_DAYS = 30
_USES = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def write(folder: Path, address: str, service: str) -> None:
    """Write ca, one pair for each of USERS, sa.key and sa.pub, and a kubeconfig for each user into `folder`.

    address: where the API server and the kubelet listen; service: where pods find the API server.
    """
    folder.mkdir(mode=0o700)
    kubernetes = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    shown: dict[str, tuple[str, ...]] = {
        "apiserver": (*kubernetes, "127.0.0.1", service, address),
        "node": ("testnode", address),
    }
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _name("", "test cluster")
    root = (
        _builder(ca, ca, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    _save(folder / "ca.crt", root.public_bytes(serialization.Encoding.PEM))
    for user, (group, name) in USERS.items():
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_alternative(one) for one in shown.get(user, (name,))]
        certificate = (
            _builder(_name(group, name), ca, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        _save(folder / f"{user}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        _save(folder / f"{user}.key", _private(key))
        _save(folder / f"{user}.kubeconfig", _kubeconfig(folder, user, f"https://{address}:6443").encode())
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _save(folder / "sa.key", _private(accounts))
    _save(
        folder / "sa.pub",
        accounts.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def _kubeconfig(folder: Path, user: str, server: str) -> str:
    """With everything in it, so that it can be used from any place."""

    def data(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "test", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}},
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": data(f"{user}.crt"),
                        "client-key-data": data(f"{user}.key"),
                    },
                }
            ],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.replace(":", "-"))


def _name(group: str, name: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if group:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
    )


def _private(key: Private) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _save(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
