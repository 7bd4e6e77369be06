"""Credentials of a Secret, as the files that NATS's own tools use, made into what connecting takes.

username and password, token, nkey (the seed of a user), user.creds (JWT and seed), ca.crt, tls.crt and tls.key.
Nothing of them is ever part of a message. Source: https://docs.nats.io/using-nats/developer/connecting.
"""

import base64
import os
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused

KNOWN = ("username", "password", "token", "nkey", "user.creds", "ca.crt", "tls.crt", "tls.key")
_TOGETHER = (("username", "password"), ("tls.crt", "tls.key"))
_WAYS = ("username", "token", "nkey", "user.creds")
_BLOCK = r"-+BEGIN {0}-+\s*([A-Za-z0-9_.=-]+?)\s*-+END {0}-+"
_JWT = re.compile(_BLOCK.format("NATS USER JWT"))
_SEED = re.compile(_BLOCK.format("USER NKEY SEED"))


@dataclass(frozen=True, slots=True)
class Login:
    """options: of `nats.aio.client.Client.connect`. tls: verified connections only, or None to take what is offered."""

    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None


def login(credentials: Mapping[str, str], *, tls: bool, scratch: Path) -> Login:
    """Check credentials and make a Login of them. tls: the uri asks for it.

    Raises Refused, naming unknown, half given, contradicting and unreadable keys.
    """
    keys = {name: value for name, value in credentials.items() if value}
    wrong = _wrong(keys)
    if wrong:
        raise _refused("; ".join(wrong))
    options: dict[str, Any] = {}
    if "username" in keys:
        options = {"user": keys["username"], "password": keys["password"]}
    elif "token" in keys:
        options = {"token": keys["token"]}
    elif "nkey" in keys:
        seed = keys["nkey"].strip()
        _check_seed(seed, "nkey")
        options = {"nkeys_seed_str": seed}
    elif "user.creds" in keys:
        options = _of_creds(keys["user.creds"])
    wants_tls = tls or "ca.crt" in keys or "tls.crt" in keys
    return Login(options, _context(keys, scratch) if wants_tls else None)


def _wrong(keys: Mapping[str, str]) -> list[str]:
    found = []
    if unknown := sorted(keys.keys() - set(KNOWN)):
        found.append(f"it holds {', '.join(unknown)}, which NATS does not know; known are {', '.join(KNOWN)}")
    for pair in _TOGETHER:
        missing = [name for name in pair if name not in keys]
        if len(missing) == 1:
            found.append(f"it lacks {missing[0]}; {' and '.join(pair)} are used together, or none")
    ways = [name for name in _WAYS if name in keys]
    if len(ways) > 1:
        found.append(f"it holds {' and '.join(ways)}; keep one way to log in")
    return found


def _of_creds(text: str) -> dict[str, Any]:
    """https://docs.nats.io/using-nats/developer/connecting/creds: two blocks, the JWT and the seed that signs."""
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise _refused("user.creds is no credentials file; write one with `nsc generate creds`")
    _check_seed(seed[1], "user.creds")
    return {"user_jwt_cb": jwt[1].encode, "signature_cb": _signer(seed[1])}


def _signer(seed: str) -> Callable[[str], bytes]:
    def sign(nonce: str) -> bytes:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        try:
            return base64.b64encode(pair.sign(nonce.encode()))
        finally:
            pair.wipe()

    return sign


def _check_seed(seed: str, name: str) -> None:
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception:
        raise _refused(f"{name} has no seed of a user; it begins with SU and is written on one line") from None


def _context(keys: Mapping[str, str], scratch: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=keys.get("ca.crt"))
    except ssl.SSLError:
        raise _refused("ca.crt has no certificates in PEM") from None
    if "tls.crt" in keys:
        with _private_file(scratch, keys["tls.crt"]) as crt, _private_file(scratch, keys["tls.key"]) as key:
            try:
                context.load_cert_chain(crt, key)
            except (ssl.SSLError, OSError):
                raise _refused("tls.crt and tls.key are no certificate with its key, in PEM") from None
    return context


@contextmanager
def _private_file(folder: Path, text: str) -> Iterator[Path]:
    """OpenSSL reads keys from files only. It is gone right after."""
    path = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _refused(what: str) -> Refused:
    return Refused(Reason.BROKER_REFUSED, f"the Secret for NATS cannot be used: {what}")
