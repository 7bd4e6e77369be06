"""The server's files: database, token, certificates, kubeconfig; and the lock that keeps a second server out."""

import base64
import errno
import fcntl
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.base.clock import Clock
from modelyard.base.errors import UserError
from modelyard.control.apiserver import certificates, tokens

_DATABASE = "store.db"
_TOKEN = "token"  # noqa: S105  the name of a file
_ACCOUNTS_KEY = "accounts.key"
_LOCK = "lock"
_KUBECONFIG = "kubeconfig"
_NAME = "modelyard"


@dataclass(frozen=True, slots=True)
class Folder:
    """An opened data folder. token: what clients must bear."""

    path: Path
    token: str

    @property
    def database(self) -> Path:
        """The store's file."""
        return self.path / _DATABASE

    @property
    def kubeconfig(self) -> Path:
        """Where write_kubeconfig writes."""
        return self.path / _KUBECONFIG

    def key(self) -> ec.EllipticCurvePrivateKey:
        """What signs the tokens of ServiceAccounts. Raises UserError."""
        return tokens.key_in(self.path / _ACCOUNTS_KEY)

    def tls(self, host: str, clock: Clock) -> ssl.SSLContext:
        """The TLS context of a server that listens on host. Raises UserError."""
        named = (host,) if host and host not in ("0.0.0.0", "::") else ()  # noqa: S104  compared, not bound
        return certificates.server_context(self.path, named, clock)

    def write_kubeconfig(self, url: str) -> Path:
        """How to reach the server, for kubectl and everybody else; only for the owner's eyes."""
        authority = (self.path / certificates.CA_CERTIFICATE).read_bytes()
        certificates.write_private(self.kubeconfig, kubeconfig(url, self.token, authority).encode())
        return self.kubeconfig


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Create (mode 0700) and lock a data folder. Raises UserError when another server uses it or it cannot be used."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"the data folder {path} cannot be used: {error.strerror}; choose another with --data-dir"
        ) from error
    try:
        _take(lock, path)
        yield Folder(path, _token(path / _TOKEN))
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise UserError(f"the data folder {path} cannot be locked: {error.strerror}") from error
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        who = f" (process {owner})" if owner.isdigit() else ""
        raise UserError(
            f"another Modelyard server{who} uses the data folder {path}; stop it, or choose another with --data-dir"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _token(path: Path) -> str:
    try:
        found = path.read_text().strip() if path.exists() else ""
        if not found:
            found = secrets.token_urlsafe(32)
            certificates.write_private(path, f"{found}\n".encode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the token file {path} cannot be used: {error}; remove it to have a new one made") from error
    return found


def kubeconfig(url: str, token: str, authority: bytes) -> str:
    """A kubeconfig with one context, `modelyard`. authority: the CA's certificate in PEM."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority).decode()}
    context = {"cluster": _NAME, "user": _NAME, "namespace": "default"}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": _NAME, "cluster": cluster}],
            "users": [{"name": _NAME, "user": {"token": token}}],
            "contexts": [{"name": _NAME, "context": context}],
            "current-context": _NAME,
            "preferences": {},
        },
        sort_keys=False,
    )
