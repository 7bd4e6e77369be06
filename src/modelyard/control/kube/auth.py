"""Where an API server is and how to prove who we are: from kubeconfigs.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import base64
import binascii
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from modelyard.base.errors import UserError
from modelyard.control.kube import exec_plugin, tls
from modelyard.control.kube.exec_plugin import Plugin
from modelyard.control.kube.tls import KeyPair

Object = dict[str, Any]
_TOKEN = re.compile(r"[!-~]*")
"""What an HTTP header can carry."""
_LINE = re.compile(r"[^\x00-\x1f\x7f]*")
_SECTIONS = ("clusters", "contexts", "users")
_GONE = {
    "auth-provider": "Kubernetes removed auth providers in 1.26: use the exec plugin of your cloud "
    "(gke-gcloud-auth-plugin, kubelogin and others), as in 'kubectl config set-credentials NAME --exec-command ...'",
    "username": "Kubernetes removed passwords in 1.19: use a client certificate, a token or an exec plugin",
}
_GONE["password"] = _GONE["username"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """server: `https://host:port`. token_file is read for every request, since others renew it.

    server_name: in the server's certificate, "": its host. shown: our own certificate. plugin: the program that gives
    credentials, where there is no token. impersonation: headers that make the server treat us as somebody else.
    """

    server: str
    ca_data: bytes | None = None
    server_name: str = ""
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    shown: KeyPair | None = None
    plugin: Plugin | None = None
    impersonation: tuple[tuple[str, str], ...] = ()
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

    def tls(self, shown: KeyPair | None = None) -> ssl.SSLContext | bool:
        """The context that trusts the server's CA; True for the machine's own trust store.

        shown: a certificate that a program gave, instead of our own. Raises UserError when it cannot be used.
        """
        shown = shown or self.shown
        if self.ca_data is None and shown is None:
            return True
        try:
            return tls.context(self.ca_data, shown)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise UserError(f"the certificates for {self.server} cannot be used: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """Several kubeconfigs as one: of an entry that stands in several the first counts.

    current: the current context, "" when none is set. source: path of each entry, by section and name.
    """

    paths: tuple[Path, ...]
    current: str
    entries: dict[str, dict[str, Object]] = field(repr=False)
    source: dict[tuple[str, str], Path]

    def config(self, context: str | None = None) -> ClientConfig:
        """context None: the current one. Raises UserError that names file and field."""
        name = context or self.current
        if not name:
            raise UserError(f"{self._place()}: current-context is not set; name a context with --context NAME")
        chosen, path = self._entry("contexts", name)
        cluster, cluster_path = self._entry("clusters", chosen.get("cluster"))
        user, user_path = self._entry("users", chosen.get("user"))
        server, authority, server_name = _cluster(cluster, str(chosen["cluster"]), cluster_path)
        return ClientConfig(
            server=server,
            ca_data=authority,
            server_name=server_name,
            namespace=_text(chosen, "namespace", path) or "default",
            **_user(user, str(chosen["user"]), user_path, exec_plugin.info(cluster, authority)),
        )

    def path_of(self, context: str) -> Path | None:
        """The file that has it."""
        return self.source.get(("contexts", context))

    def _entry(self, section: str, name: object) -> tuple[Object, Path]:
        found = self.entries[section].get(name) if isinstance(name, str) else None
        if not isinstance(name, str) or found is None:
            known = ", ".join(self.entries[section]) or "none"
            raise UserError(f"{self._place()}: there is no {section.removesuffix('s')} {name!r} (there are: {known})")
        return found, self.source[section, name]

    def _place(self) -> str:
        return ", ".join(str(each) for each in self.paths)


def load(path: Path, context: str | None = None) -> ClientConfig:
    """Read one kubeconfig; context None is its current one. Raises UserError that names the field."""
    return merged([path]).config(context)


def merged(paths: Sequence[Path]) -> Merged:
    """Read them all, as kubectl does with those of $KUBECONFIG. Raises UserError that names file and field."""
    current = ""
    entries: dict[str, dict[str, Object]] = {each: {} for each in _SECTIONS}
    source: dict[tuple[str, str], Path] = {}
    for path in paths:
        body = _read(path)
        current = current or _text(body, "current-context", path) or ""
        for section in _SECTIONS:
            for name, inner in _named(body, section, path):
                if name not in entries[section]:
                    entries[section][name], source[section, name] = inner, path
    return Merged(paths=tuple(paths), current=current, entries=entries, source=source)


def _read(path: Path) -> Object:
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


def _named(body: Object, section: str, path: Path) -> list[tuple[str, Object]]:
    """Names and bodies of a section: `contexts: [{name: ..., context: {...}}]`."""
    singular = section.removesuffix("s")
    entries = body.get(section) or []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise UserError(f"{path}: {section} must be a list of mappings with name and {singular}")
    for each in entries:
        if not isinstance(each.get(singular) or {}, dict):
            raise UserError(f"{path}: {singular} {each.get('name')!r}: {singular} must be a mapping")
    return [(str(each.get("name")), each.get(singular) or {}) for each in entries]


def _cluster(cluster: Object, name: str, path: Path) -> tuple[str, bytes | None, str]:
    """-> server, authority, name in its certificate."""
    where = f"{path}: cluster {name!r}"
    if cluster.get("insecure-skip-tls-verify"):
        raise UserError(f"{where}: insecure-skip-tls-verify is not supported; use certificate-authority-data")
    if cluster.get("proxy-url"):
        raise UserError(f"{where}: proxy-url is not supported; use an address that is reached without a proxy")
    return _server(cluster, path), _authority(cluster, path), _text(cluster, "tls-server-name", path) or ""


def _user(user: Object, name: str, path: Path, about: Object) -> Object:
    """Fields of ClientConfig. about: what a program is told about the cluster."""
    where = f"{path}: user {name!r}"
    for each, what in _GONE.items():
        if user.get(each):
            raise UserError(f"{where}: {each} is not supported: {what}")
    token_file, token = _text(user, "tokenFile", path), _text(user, "token", path)
    if token and not _TOKEN.fullmatch(token):
        raise UserError(f"{where}: token has characters that no token has")
    return {
        "token": token,
        "token_file": path.parent / token_file if token_file else None,
        "shown": _pair(user, where, path),
        "plugin": _plugin(user["exec"], where, path, about) if user.get("exec") else None,
        "impersonation": _impersonation(user, where, path),
    }


def _pair(user: Object, where: str, path: Path) -> KeyPair | None:
    certificate, key = (_content(user, each, path) for each in ("user.client-certificate", "user.client-key"))
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "client-certificate" if certificate is None else "client-key"
        raise UserError(f"{where}: {missing} or {missing}-data is missing; certificate and key are used together")
    pair = KeyPair(certificate, key)
    try:
        tls.context(None, pair)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise UserError(f"{where}: client-certificate and client-key are no pair that can be used: {error}") from error
    return pair


def _plugin(body: object, where: str, path: Path, about: Object) -> Plugin:
    """`user.exec`. Raises UserError that names the field."""
    if not isinstance(body, dict):
        raise UserError(f"{where}: exec must be a mapping with apiVersion and command")
    version, command = _text(body, "apiVersion", path) or "", _text(body, "command", path) or ""
    if version not in exec_plugin.VERSIONS:
        raise UserError(f"{where}: exec.apiVersion must be {' or '.join(exec_plugin.VERSIONS)}, not {version!r}")
    if not command:
        raise UserError(f"{where}: exec.command is missing: name the program that gives credentials")
    mode = _text(body, "interactiveMode", path) or ("IfAvailable" if version != exec_plugin.VERSIONS[0] else "")
    if mode not in exec_plugin.MODES:
        raise UserError(f"{where}: exec.interactiveMode must be one of {', '.join(exec_plugin.MODES)}")
    args, env = body.get("args") or [], body.get("env") or []
    if not isinstance(args, list) or not all(isinstance(each, str) for each in args):
        raise UserError(f"{where}: exec.args must be a list of strings")
    if not isinstance(env, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) and isinstance(each.get("value"), str)
        for each in env
    ):
        raise UserError(f"{where}: exec.env must be a list of mappings with name and value")
    return Plugin(
        user=where,
        api_version=version,
        # As kubectl: what has a slash is a path, relative to the file that names it; the rest is looked up in PATH.
        command=str(path.parent / command) if "/" in command else command,
        args=tuple(args),
        env=tuple((each["name"], each["value"]) for each in env),
        hint=_text(body, "installHint", path) or "",
        mode=mode,
        cluster=about if body.get("provideClusterInfo") else None,
    )


def _impersonation(user: Object, where: str, path: Path) -> tuple[tuple[str, str], ...]:
    name, uid = _text(user, "as", path), _text(user, "as-uid", path)
    groups, extra = user.get("as-groups") or [], user.get("as-user-extra") or {}
    if not isinstance(groups, list) or not isinstance(extra, dict):
        raise UserError(f"{where}: as-groups must be a list, as-user-extra a mapping")
    if (uid or groups or extra) and not name:
        raise UserError(f"{where}: as is missing: as-uid, as-groups and as-user-extra belong to it")
    found: list[tuple[str, Any]] = [("Impersonate-User", name), ("Impersonate-Uid", uid)]
    found += [("Impersonate-Group", each) for each in groups]
    for key, values in extra.items():
        field = f"Impersonate-Extra-{quote(str(key), safe='')}"
        found += [(field, each) for each in (values if isinstance(values, list) else [values])]
    given = [(key, value) for key, value in found if value is not None]
    if not all(isinstance(value, str) and _LINE.fullmatch(value) for _, value in given):
        raise UserError(f"{where}: as, as-uid, as-groups and as-user-extra must be text of one line each")
    return tuple(given)


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


def _authority(cluster: Object, path: Path) -> bytes | None:
    field = "certificate-authority-data" if cluster.get("certificate-authority-data") else "certificate-authority"
    try:
        found = _content(cluster, "cluster.certificate-authority", path)
        if found is not None:
            tls.context(found)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise UserError(f"{path}: cluster.{field} is no certificate that can be read: {error}") from error
    return found


def _content(body: Object, place: str, path: Path) -> bytes | None:
    """Of a field that is given as base64 in `<field>-data`, or as a file. place: `cluster.field`. Raises UserError."""
    field = place.partition(".")[2]
    data, file = _text(body, f"{field}-data", path), _text(body, field, path)
    try:
        if data:
            return base64.b64decode(data, validate=True)
        return (path.parent / file).read_bytes() if file else None
    except (binascii.Error, OSError) as error:
        named = f"{place}-data" if data else place
        what = "key" if field == "client-key" else "certificate"
        raise UserError(f"{path}: {named} is no {what} that can be read: {error}") from error
