"""What a client proves itself with, from request to request: tokens are read again, programs are asked again."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from modelyard.base.clock import Clock, SystemClock
from modelyard.base.errors import UserError
from modelyard.control.kube import exec_plugin
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.exec_plugin import Credential, Plugin

_EARLIER_SECONDS = 10.0
"""A credential is renewed so long before it ends: a request takes time, and clocks differ."""
_SHORTEST_SECONDS = 5.0
"""Between two runs of a program whose answers last hardly longer than that."""
Ask = Callable[[Plugin], Awaitable[Credential]]


class Shown(NamedTuple):
    """For one request. credential: what a program gave for it, if one did."""

    headers: tuple[tuple[str, str], ...]
    tls: ssl.SSLContext | bool
    credential: Credential | None = None


class Credentials:
    """Of one client. Raises UserError when a file or a program does not give what it should."""

    def __init__(self, config: ClientConfig, *, clock: Clock | None = None, ask: Ask = exec_plugin.ask) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._ask = ask
        self._asking = asyncio.Lock()
        self._given: Credential | None = None
        self._asked_at = float("-inf")
        self._tls = config.tls()

    async def current(self) -> Shown:
        """Fresh enough for a request that is sent now. Many may wait for one run of a program."""
        token = self._config.bearer()
        given = None
        if not token and self._config.plugin is not None:
            async with self._asking:
                given = await self._fresh(self._config.plugin)
            token = given.token
        authorization = (("Authorization", f"Bearer {token}"),) if token else ()
        return Shown((*authorization, *self._config.impersonation), self._tls, given)

    def refused(self, shown: Shown) -> bool:
        """The server answered 401 to it: whether another credential may be had for another attempt."""
        if shown.credential is not None and shown.credential is self._given:
            self._given = None
        return shown.credential is not None or self._config.token_file is not None

    async def _fresh(self, plugin: Plugin) -> Credential:
        now, since = self._clock.now(), self._clock.monotonic() - self._asked_at
        if self._given is not None:
            left = float("inf") if self._given.expires is None else self._given.expires - now
            if left > _EARLIER_SECONDS or (left > 0 and since < _SHORTEST_SECONDS):
                return self._given
        before, self._given = self._given, None
        found = await self._ask(plugin)
        if found.expires is not None and found.expires <= self._clock.now():
            raise UserError(
                f"{plugin.user}: the program {plugin.command} gave a credential that has expired: "
                "log in again, or set this machine's clock"
            )
        self._given, self._asked_at = found, self._clock.monotonic()
        if before is None or found.shown != before.shown:
            self._tls = self._config.tls(found.shown)
        return found
