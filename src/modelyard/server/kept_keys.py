"""The keys of issuers, kept where the next leader finds them: a change of the lead needs no issuer.

They lie as files in a folder, as `IssuerKeys` writes them, and in a Secret. Nothing of it is secret, but whoever could
change it could make tokens; and the operator may touch nothing but Secrets of its own namespace.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import SECRETS

log = logging.getLogger(__name__)
Object = dict[str, Any]
NAME = "modelyard-issuer-keys"
_FILE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}\.json")
_MOST_BYTES = 700_000
"""A Secret may have 1 MiB, and base64 takes a third more."""
_SECONDS = 5.0
"""Until changes are written: several issuers answer together."""
_AGAIN_SECONDS = 30.0
_REFRESH_SECONDS = 6 * 3600.0
"""Keys that stay the same are confirmed again and again, and count for a week after that."""


class KeptKeys:
    """folder: that of IssuerKeys. `restore` before that reads it."""

    def __init__(self, client: Client, namespace: str, folder: Path, clock: Clock) -> None:
        self._client = client
        self._namespace = namespace
        self._folder = folder
        self._clock = clock
        self._changed = asyncio.Event()

    async def restore(self) -> None:
        """Files from the Secret. What cannot be had is fetched from the issuers anyway."""
        try:
            stored = await self._stored()
        except ModelyardError as error:
            log.warning("the kept keys of issuers cannot be read: %s", error)
            return
        try:
            await asyncio.to_thread(_write, self._folder, _data(stored))
        except OSError as error:
            log.warning("the kept keys of issuers cannot be put to %s: %s", self._folder, error)

    def look_again(self) -> None:
        """Files may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Keep them up to date until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_SECONDS):
                    await self._changed.wait()
            await self._clock.sleep(_SECONDS)
            self._changed.clear()
            try:
                await self._keep()
            except (ModelyardError, OSError) as error:
                log.warning("the keys of issuers cannot be kept: %s; tried again", error)
                await self._clock.sleep(_AGAIN_SECONDS)
                self._changed.set()

    async def _keep(self) -> None:
        wanted = await asyncio.to_thread(_read, self._folder)
        stored = await self._stored()
        if wanted == _data(stored):
            return
        data = {name: base64.b64encode(content).decode() for name, content in wanted.items()}
        if stored is not None:
            await self._client.request("PUT", SECRETS.path(self._namespace, NAME), body={**stored, "data": data})
            return
        metadata = {"name": NAME, "namespace": self._namespace}
        await self._client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    async def _stored(self) -> Object | None:
        try:
            return await self._client.get(SECRETS, self._namespace, NAME)
        except ApiError as error:
            if error.status != 404:
                raise
            return None


def _read(folder: Path) -> dict[str, bytes]:
    """The newest first, as many as there is room for: those of issuers that nobody wants any more are old."""
    files = [each for each in folder.glob("*.json") if _FILE.fullmatch(each.name)] if folder.is_dir() else []
    found: dict[str, bytes] = {}
    for each in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        content = each.read_bytes()
        if sum(map(len, found.values())) + len(content) <= _MOST_BYTES:
            found[each.name] = content
    return found


def _write(folder: Path, data: Mapping[str, bytes]) -> None:
    """What this machine fetched itself is newer."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in data.items():
        path = folder / name
        if _FILE.fullmatch(name) and not path.exists():
            path.write_bytes(content)


def _data(stored: Object | None) -> dict[str, bytes]:
    found = {}
    for name, encoded in ((stored or {}).get("data") or {}).items():
        with contextlib.suppress(binascii.Error, TypeError, ValueError):
            found[name] = base64.b64decode(encoded, validate=True)
    return found
