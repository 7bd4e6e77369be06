"""Whose ServiceAccount tokens count in a cluster: its issuer and its keys, as its API server tells them.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError, RetryLater
from modelyard.control.engine.standing import Place
from modelyard.control.gateway.issuer_keys import IssuerKeys
from modelyard.control.gateway.jwks import Fetched
from modelyard.control.ir.platform import ACCOUNTS, KeySource
from modelyard.control.kube.client import Client
from modelyard.control.plan.platform import ACCOUNTS_URL
from modelyard.wire import jwks

log = logging.getLogger(__name__)
_DISCOVERY, _KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"
_AGAIN_SECONDS = 600.0
_LONGEST_URL = 2048


class ClusterAccounts:
    """Run `keys.run` beside it. folder: where key sets are kept; no token counts before they were fetched once."""

    def __init__(self, client: Client, folder: Path, clock: Clock) -> None:
        self.keys = IssuerKeys(folder, clock, self._changed, self._fetch)
        self._client = client
        self._url = ""
        self._known = asyncio.Event()
        self._follower: Callable[[], None] = lambda: None
        self.keys.want((KeySource(name=ACCOUNTS, url=client.config.server),))

    def follow(self, changed: Callable[[], None]) -> None:
        """Call it after each change from now on."""
        self._follower = changed

    async def first(self, seconds: float) -> None:
        """Wait until they are known, but not longer: who leads next must not refuse whom the last one let in."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._known.wait()

    def _changed(self) -> None:
        self._known.set()
        self._follower()

    def place(self) -> Place:
        """What is known now."""
        keys = self.keys.known().get(ACCOUNTS, "") if self._url else ""
        return Place(loopback=False, accounts=keys, accounts_url=self._url or ACCOUNTS_URL)

    async def _fetch(self, _source: KeySource) -> Fetched:
        try:
            issuer = (await self._client.request("GET", _DISCOVERY)).get("issuer")
            if not isinstance(issuer, str) or not 0 < len(issuer) <= _LONGEST_URL:
                raise RetryLater(f"{_DISCOVERY} names no issuer")
            found = jwks.read((await self._client.text(_KEYS, {})).encode())
        except (ModelyardError, ValueError) as error:
            log.warning("the keys of this cluster's ServiceAccounts cannot be read: %s", error)
            raise RetryLater(str(error)) from error
        if self._url and self._url != issuer:
            log.warning("the issuer of ServiceAccount tokens is %s from now on, and %s no more", issuer, self._url)
        self._url = issuer
        self._known.set()  # also where the disk had the same keys already, so that nothing changes
        return Fetched(keys=found.text, lifetime=_AGAIN_SECONDS, skipped=found.skipped)
