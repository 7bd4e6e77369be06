"""Where an API server is and how to prove who we are: from a kubeconfig."""

import base64
import binascii
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modelyard.base.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """server: `https://host:port`. token_file is read again whenever the server refuses the old token."""

    server: str
    ca_data: bytes | None = None
    token: str | None = None
    token_file: Path | None = None
    namespace: str = "default"

    def bearer(self) -> str | None:
        """The token to send now."""
        if self.token_file is not None:
            try:
                return self.token_file.read_text().strip()
            except OSError as error:
                raise UserError(f"the token file {self.token_file} cannot be read: {error.strerror}") from error
        return self.token

    def tls(self) -> ssl.SSLContext | bool:
        """The context that trusts the server's CA; True for the machine's own trust store."""
        if self.ca_data is None:
            return True
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self.ca_data.decode())
        return context


def load(path: Path, context: str | None = None) -> ClientConfig:
    """Read a kubeconfig; context None is its current one. Raises UserError that names what is missing."""
    try:
        body = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"the kubeconfig {path} is not valid YAML") from error
    if not isinstance(body, dict):
        raise UserError(f"the kubeconfig {path} is empty")
    name = context or body.get("current-context") or ""
    chosen = _named(body, "contexts", name, path).get("context", {})
    cluster = _named(body, "clusters", chosen.get("cluster", ""), path).get("cluster", {})
    user = _named(body, "users", chosen.get("user", ""), path).get("user", {})
    if "exec" in user or "client-certificate-data" in user or "client-certificate" in user:
        raise UserError(f"{path}: context {name} logs in by a program or certificate; only tokens are understood yet")
    token_file = user.get("tokenFile")
    return ClientConfig(
        server=str(cluster.get("server", "")).rstrip("/"),
        ca_data=_authority(cluster, path),
        token=user.get("token"),
        token_file=Path(token_file) if token_file else None,
        namespace=chosen.get("namespace") or "default",
    )


def _named(body: dict[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    found = next((each for each in body.get(section) or () if each.get("name") == name), None)
    if not isinstance(found, dict):
        known = ", ".join(str(each.get("name")) for each in body.get(section) or ()) or "none"
        raise UserError(f"{path}: there is no {section.removesuffix('s')} {name!r} (there are: {known})")
    return found


def _authority(cluster: dict[str, Any], path: Path) -> bytes | None:
    try:
        if cluster.get("certificate-authority-data"):
            return base64.b64decode(cluster["certificate-authority-data"], validate=True)
        if cluster.get("certificate-authority"):
            return (path.parent / str(cluster["certificate-authority"])).read_bytes()
    except (binascii.Error, OSError) as error:
        raise UserError(f"{path}: the cluster's certificate authority cannot be read: {error}") from error
    return None
