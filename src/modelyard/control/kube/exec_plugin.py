"""Programs that give credentials: `user.exec` of a kubeconfig.

Source: https://kubernetes.io/docs/reference/config-api/client-authentication.v1/
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.base import clock as clocks
from modelyard.base.errors import UserError
from modelyard.control.kube.tls import KeyPair

Object = dict[str, Any]
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
MODES = ("Never", "IfAvailable", "Always")
TOKEN = re.compile(r"[!-~]+")
"""What an HTTP header can carry."""
_MOST_BYTES = 2**20
_MOST_ERROR_BYTES = 64 * 2**10
_SHOWN_ERROR = 500
_SECONDS = 60.0
_SECONDS_WITH_PEOPLE = 600.0
"""Somebody logs in with a browser."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugin:
    """user: how errors name it. command: a path, or a name that is looked up in PATH. hint: how it is installed.

    cluster: what it is told about the server; None: nothing. mode: one of MODES.
    """

    user: str
    api_version: str
    command: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    hint: str = ""
    mode: str = "IfAvailable"
    cluster: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """token: "" where it is a certificate alone. expires: seconds since 1970, None: it does not say."""

    token: str = field(default="", repr=False)
    shown: KeyPair | None = None
    expires: float | None = None


async def ask(plugin: Plugin) -> Credential:
    """Run it, never by a shell. Raises UserError that names the user, the program and how it is installed."""
    interactive = _interactive(plugin)
    status, output, errors = await _run(plugin, interactive=interactive)
    if status != 0:
        said = errors.decode(errors="replace").strip()[-_SHOWN_ERROR:]
        raise _wrong(plugin, f"ended with status {status}" + (f": {said}" if said else ""))
    return read(plugin, output)


def told(plugin: Plugin, *, interactive: bool) -> Object:
    """What the program finds in KUBERNETES_EXEC_INFO."""
    spec: Object = {"interactive": interactive}
    if plugin.cluster is not None:
        spec["cluster"] = dict(plugin.cluster)
    return {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}


def read(plugin: Plugin, output: bytes) -> Credential:
    """What it answered. Raises UserError, which tells nothing of the answer itself."""
    try:
        body = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise _wrong(plugin, "answered something that is not JSON") from error
    if not isinstance(body, dict) or body.get("kind") != "ExecCredential":
        raise _wrong(plugin, "answered something that is no ExecCredential")
    if body.get("apiVersion") != plugin.api_version:
        raise _wrong(plugin, f"answered in another apiVersion than {plugin.api_version}, which the kubeconfig names")
    status = body.get("status")
    if not isinstance(status, dict):
        raise _wrong(plugin, "answered no status")
    token, certificate, key = (_text(status, each) for each in ("token", "clientCertificateData", "clientKeyData"))
    if None in (token, certificate, key) or bool(certificate) != bool(key) or not (token or certificate):
        raise _wrong(plugin, "must answer status.token, or clientCertificateData and clientKeyData, or all three")
    if token and not TOKEN.fullmatch(token):
        raise _wrong(plugin, "answered a token with characters that no token has")
    return Credential(
        token=token or "",
        shown=KeyPair(certificate.encode(), key.encode()) if certificate and key else None,
        expires=_expires(plugin, status.get("expirationTimestamp")),
    )


def _text(status: Object, field: str) -> str | None:
    """Its text, "" when it is missing, None when it is no text."""
    value = status.get(field, "")
    return value if isinstance(value, str) else None


def _expires(plugin: Plugin, stamp: object) -> float | None:
    if stamp is None:
        return None
    try:
        return clocks.seconds_since_epoch(str(stamp))
    except ValueError as error:
        raise _wrong(plugin, "answered a status.expirationTimestamp that is no time as in RFC 3339") from error


def _interactive(plugin: Plugin) -> bool:
    """Whether it may ask people. Raises UserError when it must and nobody is there."""
    people = plugin.mode != "Never" and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    if plugin.mode == "Always" and not people:
        raise _wrong(plugin, "asks people (interactiveMode: Always), and there is no terminal: run it from one")
    return people


async def _run(plugin: Plugin, *, interactive: bool) -> tuple[int, bytes, bytes]:
    """-> status, output, errors. Its errors go to the terminal where people sit."""
    path = shutil.which(plugin.command)
    if path is None:
        raise _wrong(plugin, "is not installed")
    given = json.dumps(told(plugin, interactive=interactive))
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            *plugin.args,
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if interactive else asyncio.subprocess.PIPE,
            env={**os.environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": given},
            # What it starts ends with it; on a terminal it must stay in the group that may read from there.
            start_new_session=not interactive,
        )
    except (OSError, ValueError) as error:
        raise _wrong(plugin, f"cannot be started: {error}") from error
    seconds = _SECONDS_WITH_PEOPLE if interactive else _SECONDS
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            output = group.create_task(_bounded(process))
            errors = group.create_task(_last(process.stderr, _MOST_ERROR_BYTES))
            status = await process.wait()
    except TimeoutError as error:
        raise _wrong(plugin, f"did not answer within {seconds:g} seconds") from error
    finally:
        _end(process)
        await process.wait()
    if len(output.result()) > _MOST_BYTES:
        raise _wrong(plugin, f"answered more than {_MOST_BYTES} bytes")
    return status, output.result(), errors.result()


async def _bounded(process: asyncio.subprocess.Process) -> bytes:
    """What it answers; one that answers too much is ended."""
    found = b""
    assert process.stdout is not None
    while chunk := await process.stdout.read(65_536):
        if len(found) <= _MOST_BYTES:
            found += chunk
        else:
            _end(process)
    return found


async def _last(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """Read to the end, and keep the end."""
    found = b""
    while stream is not None and (chunk := await stream.read(65_536)):
        found = (found + chunk)[-most:]
    return found


def _end(process: asyncio.subprocess.Process) -> None:
    """One that still runs, with what it started. What an ended one left behind may be meant to stay."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()


def _wrong(plugin: Plugin, what: str) -> UserError:
    hint = f"\n{plugin.hint.strip()}" if plugin.hint.strip() else ""
    return UserError(f"{plugin.user}: the program {plugin.command}, which gives its credentials, {what}{hint}")


def info(cluster: Mapping[str, Any], authority: bytes | None) -> Object:
    """What a program is told about a cluster of a kubeconfig. authority: what its CA file or data holds."""
    found: Object = {"server": cluster.get("server", "")}
    if name := cluster.get("tls-server-name"):
        found["tls-server-name"] = name
    if authority is not None:
        found["certificate-authority-data"] = base64.b64encode(authority).decode()
    for each in cluster.get("extensions") or ():
        if isinstance(each, dict) and each.get("name") == "client.authentication.k8s.io/exec":
            found["config"] = each.get("extension")
    return found
