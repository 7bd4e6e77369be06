"""How commands call models: the options that say where and as whom, and the token of the project's owner."""

import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from modelyard.base.errors import ModelyardError, UserError
from modelyard.cli.session import Session, Where, run
from modelyard.sdk import tokens
from modelyard.sdk.client import Client, NotAuthenticated
from modelyard.sdk.tokens import Bearer

T = TypeVar("T")
_Command = Callable[..., Any]
_TOKEN, _CA, _CERT = "MODELYARD_TOKEN", "MODELYARD_CA", "MODELYARD_CERT"
_LARGEST_TOKEN = 16 * 2**10
_OWNER_SECONDS = 120.0
_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """What the options and the environment say. url: None for the project's own gateway."""

    url: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    timeout: float = 60.0

    def token(self) -> str | None:
        """Raises UserError where the file cannot be read. Never from the command line: others can read that."""
        if self.token_file is None:
            return os.environ.get(_TOKEN) or None
        try:
            with self.token_file.open("rb") as file:
                text = file.read(_LARGEST_TOKEN + 1).decode("ascii").strip()
        except OSError as error:
            raise UserError(f"--token-file {self.token_file}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError:
            text = ""
        if not text or len(text) > _LARGEST_TOKEN:
            raise UserError(
                f"--token-file {self.token_file}: expected a token alone, as 'modelyard token create' prints it"
            )
        return text

    def client(self, url: str, token: str | None) -> Client:
        """Nothing is tried again: who waits at a terminal wants to know why."""
        return Client(url, self.timeout, token=token, ca=self.ca, certificate=self.cert, retry=False)

    def curl(self, *, bears_token: bool) -> str:
        """The same in options of curl."""
        options = [
            f"{name} {shlex.quote(str(path))}" for name, path in (("--cacert", self.ca), ("--cert", self.cert)) if path
        ]
        if bears_token:
            source = f"$(cat {shlex.quote(str(self.token_file))})" if self.token_file else f"${_TOKEN}"
            options.append(f'-H "Authorization: Bearer {source}"')
        return " ".join(options)


def gateway_options(function: _Command) -> _Command:
    """Adds --url, --token-file, --ca, --cert and --timeout; the command gets a Caller as its first argument."""

    @click.option("--url", metavar="URL", help="Gateway or server to ask, for example that of 'modelyard serve'.")
    @click.option(
        "--token-file", type=_FILE, metavar="FILE", help=f"Whose call it is: a file with a token; {_TOKEN} by default."
    )
    @click.option(
        "--ca",
        type=_FILE,
        envvar=_CA,
        metavar="FILE",
        help=f"Authority of the gateway's certificate, in PEM; or {_CA}.",
    )
    @click.option(
        "--cert",
        type=_FILE,
        envvar=_CERT,
        metavar="FILE",
        help=f"Own certificate and key for mTLS, in PEM; or {_CERT}.",
    )
    @click.option("--timeout", default=60.0, show_default=True, help="Seconds for the answer.")
    @wraps(function)
    def wrapper(
        *args: Any,
        url: str | None,
        token_file: Path | None,
        ca: Path | None,
        cert: Path | None,
        timeout: float,
        **options: Any,
    ) -> Any:
        caller = Caller(url=url, token_file=token_file, ca=ca, cert=cert, timeout=timeout)
        return function(caller, *args, **options)

    return wrapper


def ask(caller: Caller, url: str, where: Where, work: Callable[[Client, bool], T]) -> T:
    """Call by way of a client; work also gets whether a token is sent.

    Where the project's own gateway wants a token and none was given, its owner's is made and used. Raises what clients
    raise.
    """
    token = caller.token()
    if token is not None:
        _warn(url)
    try:
        with caller.client(url, token) as client:
            return work(client, token is not None)
    except NotAuthenticated as refusal:
        if token is not None:
            raise UserError(f"{refusal.message} (the token is that of {caller.token_file or _TOKEN})") from refusal
        made = _owners(where) if caller.url is None else None
        if made is None:
            raise UserError(f"{refusal.message}; give it by --token-file FILE or {_TOKEN}") from refusal
    click.echo(f"called as the owner of this project; --token-file or {_TOKEN} calls as somebody else", err=True)
    with caller.client(url, made) as client:
        return work(client, True)


def _owners(where: Where) -> str | None:
    """A token of the owner, for whoever may read the key of the server's issuer; None for others."""

    async def work(session: Session) -> str | None:
        if session.target.local is None:
            return None  # the gateway of another context may be anybody's
        return (await tokens.create(session.client, Bearer(), _OWNER_SECONDS, time.time())).token

    try:
        return run(where, work)
    except ModelyardError:
        return None  # the refusal says what is needed


def _warn(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "http" and host not in ("localhost", "::1") and not host.startswith("127."):
        click.echo(f"warning: the token goes to {host} in plain text; https would keep it secret", err=True)
