"""The operator's own Secrets: the key of units' secrets, and the certificates between it and the gateways.

Only who leads writes them. Each write carries the version that it was decided on, so that a conflict means: look again.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import re
import secrets
from collections.abc import Mapping
from typing import Any

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError, UserError
from modelyard.control.gateway.remote import Identity
from modelyard.control.ir import names
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import SECRETS
from modelyard.control.plan import certificates as plan
from modelyard.control.render.xds_bootstrap import GATEWAY_SAN, OPERATOR_SAN, XDS_HOST
from modelyard.server import certificates
from modelyard.server.certificates import AUTHORITY, CERTIFICATE, KEY, Kept, Pair

log = logging.getLogger(__name__)
Object = dict[str, Any]
GATEWAY_KEY, AUTHORITIES, GATEWAY = "modelyard-gateway-key", "modelyard-xds-ca", "modelyard-gateway-tls"
"""Names of the Secrets."""
_KEY_FIELD = "key"
_KEY_BYTES = 32
_HEX = re.compile(rb"[0-9a-f]{64}\n?")
_AGAIN_SECONDS = 2.0
_GATEWAY_NAMES = (GATEWAY_SAN,)
_OPERATOR_NAMES = (XDS_HOST, OPERATOR_SAN)


class SystemSecrets:
    """reflector: of the Secrets of the system namespace; somebody runs it. `begin` first, then `run`."""

    def __init__(self, client: Client, reflector: Reflector, namespace: str, clock: Clock) -> None:
        self._client = client
        self._reflector = reflector
        self._namespace = namespace
        self._clock = clock
        self._changed = asyncio.Event()
        self._key = b""
        self._kept = Kept()
        self._mine: Pair | None = None
        self._identity = Identity("", "", "")
        reflector.add_handler(self._saw)

    @property
    def gateway_key(self) -> bytes:
        """What the secrets of units are made from. It never changes: replicas know what follows from it."""
        return self._key

    def identity(self) -> Identity:
        """What is shown to gateways from now on. Any thread may ask."""
        return self._identity

    async def begin(self) -> None:
        """Read or make everything. Raises UserError when that cannot be done."""
        while True:
            try:
                await self._keep()
            except UserError:
                raise
            except ModelyardError as error:
                log.warning("the operator's Secrets: %s; tried again", error)
                await self._clock.sleep(_AGAIN_SECONDS)
            else:
                return

    async def run(self) -> None:
        """Renew what is due, and put back what somebody removed, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience()):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self._keep()
            except ModelyardError as error:
                log.warning("the certificates of the gateways: %s; tried again", error)
                await self._clock.sleep(_AGAIN_SECONDS)
                self._changed.set()

    def _saw(self, place: tuple[str, str], _old: Object | None, _new: Object | None) -> None:
        if place[1] in (GATEWAY_KEY, AUTHORITIES, GATEWAY):
            self._changed.set()

    async def _keep(self) -> None:
        await self._keep_key()
        kept = await self._keep_authorities()
        await self._keep_gateway(kept)
        self._keep_mine(kept)

    async def _keep_key(self) -> None:
        stored = await self._stored(GATEWAY_KEY)
        if stored is None:
            key = self._key or secrets.token_bytes(_KEY_BYTES)
            stored = await self._put(GATEWAY_KEY, {_KEY_FIELD: key.hex().encode()}, None)
        found = _data(stored).get(_KEY_FIELD, b"")
        if _HEX.fullmatch(found):
            self._key = self._key or bytes.fromhex(found.decode())
        elif not self._key:
            raise UserError(
                f"Secret {self._namespace}/{GATEWAY_KEY}: data[{_KEY_FIELD}] is no key of 64 hexadecimal digits; "
                "restore it from a backup (if you remove the Secret a new one is made, and what runs answers the "
                "gateway only after 'modelyard restart' of each service)"
            )

    async def _keep_authorities(self) -> Kept:
        stored = await self._stored(AUTHORITIES)
        # One that was removed is put back: gateways trust nobody else yet.
        before = self._kept if stored is None else certificates.read(_data(stored))
        after = certificates.advanced(before, self._clock.now())
        if after != before or stored is None:
            log.info("the authorities of the gateways' certificates change")
            await self._put(AUTHORITIES, certificates.data(after), stored)
        self._kept = after
        return after

    async def _keep_gateway(self, kept: Kept) -> None:
        stored = await self._stored(GATEWAY)
        data = _data(stored)
        pair = self._renewed(_pair(data), kept, _GATEWAY_NAMES)
        wanted = {CERTIFICATE: pair.certificate, KEY: pair.key, AUTHORITY: kept.bundle}
        if data != wanted:
            log.info("the certificate of the gateways is made anew, or whom they trust")
            await self._put(GATEWAY, wanted, stored, kind="kubernetes.io/tls")

    def _keep_mine(self, kept: Kept) -> None:
        self._mine = self._renewed(self._mine, kept, _OPERATOR_NAMES)
        shown = (self._mine.certificate, self._mine.key, kept.bundle)
        self._identity = Identity(*(each.decode() for each in shown))

    def _renewed(self, pair: Pair | None, kept: Kept, wanted: tuple[str, ...]) -> Pair:
        """The same while it is good."""
        authority, now = kept.current, self._clock.now()
        mine = kept.lives.current
        if authority is None or mine is None:
            raise UserError(f"Secret {self._namespace}/{AUTHORITIES} holds no authority; remove it")
        life = certificates.life(pair.certificate, [authority.certificate]) if pair else None
        if pair is not None and not plan.must_renew(life, mine, wanted, now):
            return pair
        return certificates.issue(authority, wanted, now)

    def _patience(self) -> float:
        gateway = _data(self._reflector.cache.get((self._namespace, GATEWAY)))
        leaves = (
            certificates.life(gateway.get(CERTIFICATE, b"")),
            certificates.life(self._mine.certificate) if self._mine else None,
        )
        return plan.next_look(self._kept.lives, leaves, self._clock.now())

    async def _stored(self, name: str) -> Object | None:
        """From the server, not from the cache, which may not have our own last write yet."""
        try:
            return await self._client.get(SECRETS, self._namespace, name)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def _put(
        self, name: str, data: Mapping[str, bytes], stored: Object | None, *, kind: str = "Opaque"
    ) -> Object:
        """Raises ApiError on a conflict: then somebody else was first, and it is looked at again."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        if stored is not None:
            path = SECRETS.path(self._namespace, name)
            return await self._client.request("PUT", path, body={**stored, "data": encoded})
        labels = {"app.kubernetes.io/name": "modelyard", names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
        metadata = {"name": name, "namespace": self._namespace, "labels": labels}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded}
        return await self._client.create(SECRETS, body)


def _data(stored: Object | None) -> dict[str, bytes]:
    found = {}
    for key, encoded in ((stored or {}).get("data") or {}).items():
        with contextlib.suppress(binascii.Error, TypeError, ValueError):
            found[key] = base64.b64decode(encoded, validate=True)
    return found


def _pair(data: Mapping[str, bytes]) -> Pair | None:
    pair = Pair(certificate=data.get(CERTIFICATE, b""), key=data.get(KEY, b""))
    return pair if certificates.fits(pair) else None
