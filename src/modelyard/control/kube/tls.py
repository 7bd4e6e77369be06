"""TLS of a client: whom it trusts, and the certificate that it shows."""

import ssl
import tempfile
from typing import NamedTuple


class KeyPair(NamedTuple):
    """A certificate, with what stands between it and an authority, and its key; both in PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "KeyPair(...)"  # the key belongs into no log


def context(authority: bytes | None, shown: KeyPair | None = None) -> ssl.SSLContext:
    """authority: the only one that is trusted; None: those of this machine. Raises ValueError, OSError on bad PEM."""
    found = ssl.create_default_context(cadata=None if authority is None else authority.decode())
    if shown is not None:
        # OpenSSL takes them from a file only: one that nobody else can read, and that is gone at once.
        with tempfile.NamedTemporaryFile(prefix="modelyard-") as file:
            file.write(shown.certificate.rstrip() + b"\n" + shown.key)
            file.flush()
            found.load_cert_chain(file.name, password=_no_password)
    return found


def _no_password() -> str:
    """Otherwise OpenSSL asks on the terminal."""
    raise ValueError("the key has a password; give one without")
