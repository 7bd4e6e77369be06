"""Where an API server is and how to prove who we are: from a kubeconfig."""

import base64
import binascii
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from modelyard.base.errors import UserError

_TOKEN = re.compile(r"[!-~]*")
"""What an HTTP header can carry."""
_NOT_YET = (
    "exec",
    "auth-provider",
    "client-certificate",
    "client-certificate-data",
    "username",
    "as",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """server: `https://host:port`. token_file is read for every request, since others renew it."""

    server: str
    ca_data: bytes | None = None
    token: str | None = None
    token_file: Path | None = None
    namespace: str = "default"

    def bearer(self) -> str | None:
        """The token to send now. Raises UserError when its file cannot be used."""
        if self.token_file is None:
            return self.token
        try:
            token = self.token_file.read_text().strip()
        except OSError as error:
            raise UserError(f"the token file {self.token_file} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            token = "\0"  # as bad as any other byte that no header carries  # noqa: S105
        if not _TOKEN.fullmatch(token):
            raise UserError(f"the token file {self.token_file} must hold one token and nothing else")
        return token

    def tls(self) -> ssl.SSLContext | bool:
        """The context that trusts the server's CA; True for the machine's own trust store."""
        return True if self.ca_data is None else _trusting(self.ca_data)


def load(path: Path, context: str | None = None) -> ClientConfig:
    """Read a kubeconfig; context None is its current one. Raises UserError that names the field."""
    body = _read(path)
    name = context or body.get("current-context")
    if not name:
        raise UserError(f"{path}: current-context is not set; name a context with --context NAME")
    chosen = _named(body, "contexts", name, path)
    cluster = _named(body, "clusters", chosen.get("cluster"), path)
    user = _named(body, "users", chosen.get("user"), path)
    refused = next((field for field in _NOT_YET if user.get(field)), None)
    if refused:
        raise UserError(f"{path}: user {chosen['user']!r}: {refused} is not understood yet; use token or tokenFile")
    if cluster.get("insecure-skip-tls-verify"):
        raise UserError(
            f"{path}: cluster {chosen['cluster']!r}: insecure-skip-tls-verify is not supported; "
            "use certificate-authority-data"
        )
    token_file = _text(user, "tokenFile", path)
    token = _text(user, "token", path)
    if token and not _TOKEN.fullmatch(token):
        raise UserError(f"{path}: user {chosen['user']!r}: token has characters that no token has")
    return ClientConfig(
        server=_server(cluster, path),
        ca_data=_authority(cluster, path),
        token=token,
        token_file=path.parent / token_file if token_file else None,
        namespace=_text(chosen, "namespace", path) or "default",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        body = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the kubeconfig {path} is not valid YAML") from error
    if not body:
        raise UserError(f"the kubeconfig {path} is empty")
    if not isinstance(body, dict):
        raise UserError(f"the kubeconfig {path} must be a mapping with clusters, users and contexts")
    return body


def _named(body: dict[str, Any], section: str, name: object, path: Path) -> dict[str, Any]:
    """The entry's body: `contexts: [{name: ..., context: {...}}]`."""
    singular = section.removesuffix("s")
    entries = body.get(section) or []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise UserError(f"{path}: {section} must be a list of mappings with name and {singular}")
    found = next((each for each in entries if each.get("name") == name), None)
    if found is None:
        known = ", ".join(str(each.get("name")) for each in entries) or "none"
        raise UserError(f"{path}: there is no {singular} {name!r} (there are: {known})")
    inner = found.get(singular) or {}
    if not isinstance(inner, dict):
        raise UserError(f"{path}: {singular} {name!r}: {singular} must be a mapping")
    return inner


def _text(body: dict[str, Any], field: str, path: Path) -> str | None:
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{path}: {field} must be a string")
    return value or None


def _server(cluster: dict[str, Any], path: Path) -> str:
    server = (_text(cluster, "server", path) or "").rstrip("/")
    try:
        parts = urlsplit(server)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"{path}: cluster.server must be a URL like https://host:6443, not {server!r}")
    return server


def _authority(cluster: dict[str, Any], path: Path) -> bytes | None:
    data, file = _text(cluster, "certificate-authority-data", path), _text(cluster, "certificate-authority", path)
    field = "certificate-authority-data" if data else "certificate-authority"
    try:
        if data:
            found = base64.b64decode(data, validate=True)
        elif file:
            found = (path.parent / file).read_bytes()
        else:
            return None
        _trusting(found)
    except (binascii.Error, OSError, ValueError) as error:  # SSLError is an OSError
        raise UserError(f"{path}: cluster.{field} is no certificate that can be read: {error}") from error
    return found


def _trusting(authority: bytes) -> ssl.SSLContext:
    # Given an authority it trusts no other, and does not read the machine's.
    return ssl.create_default_context(cadata=authority.decode())
