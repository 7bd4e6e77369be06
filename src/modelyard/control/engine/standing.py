"""What holds for the gateway, kept up to date: settings, Secrets and the keys of issuers in, a Standing out."""

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.api import issuer, settings
from modelyard.api.issuer import OwnIssuer
from modelyard.api.settings import Settings
from modelyard.base.clock import Clock
from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, UserError
from modelyard.control.engine import kept_settings
from modelyard.control.engine.kept_settings import KeptSettings
from modelyard.control.engine.ports import Keys
from modelyard.control.ir.platform import Tls
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import SECRETS
from modelyard.control.plan import platform
from modelyard.control.plan.platform import Ground, Standing

log = logging.getLogger(__name__)
Object = dict[str, Any]
_AGAIN_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 30.0
"""Until what ends by itself is looked at again: the clock that waits stands still while a laptop sleeps."""
_GONE = f"""{settings.SUBJECT} is gone: write it again, for the defaults with {settings.KEY}: '{{}}'"""
_SETTINGS = (settings.NAMESPACE, settings.NAME)
_ISSUER = (settings.NAMESPACE, issuer.NAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What the place gives by itself.

    loopback: whether only this machine reaches the gateway. accounts: the key set of ServiceAccounts' tokens, "" while
    it is not known. accounts_url: their `iss`.
    """

    loopback: bool
    accounts: str = ""
    accounts_url: str = platform.ACCOUNTS_URL


class StandingWatch:
    """Tells `stand` what holds whenever that changes, and people what is wrong: by events on the ConfigMap and the log.

    configmaps, secrets: reflectors of the system namespace at least, that somebody runs. keys: what fetches the keys of
    issuers; somebody runs it and calls `look_again` when it has news. place: is asked at every look.
    """

    def __init__(  # noqa: PLR0913  the composition root hands every part over by name
        self,
        *,
        client: Client,
        configmaps: Reflector,
        secrets: Reflector,
        keys: Keys,
        recorder: EventRecorder,
        clock: Clock,
        place: Callable[[], Place],
        stand: Callable[[Standing], None],
    ) -> None:
        self._client = client
        self._configmaps = configmaps
        self._secrets = secrets
        self._keys = keys
        self._recorder = recorder
        self._clock = clock
        self._place = place
        self._stand = stand
        self._changed = asyncio.Event()
        self._kept = KeptSettings(client, secrets)
        self._read: tuple[str | None, Settings | None] = (None, None)
        self._unreadable = ""
        self._made: Object | None = None
        self._tls: tuple[Any, Tls | None] = (None, None)
        self._last: Standing | None = None
        self._told: dict[str, Reason] = {}
        self._announced: Any = None
        self._patience: float | None = None
        configmaps.add_handler(self._saw)
        secrets.add_handler(self._saw)

    def look_again(self) -> None:
        """The keys of an issuer changed, or what is wrong with them."""
        self._changed.set()

    def _saw(self, place: tuple[str, str], _old: Object | None, _new: Object | None) -> None:
        if place == _ISSUER:
            self._made = None  # from here on the reflector knows better
        if place == kept_settings.PLACE:
            self._kept.saw()
        if place[0] == settings.NAMESPACE:
            self._changed.set()

    async def begin(self) -> None:
        """Stand for the first time, with the settings and Secrets that there are now."""
        await asyncio.gather(self._configmaps.confirm(), self._secrets.confirm())
        await self._look()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self._changed.wait()
            self._changed.clear()
            await self._look()

    async def _look(self) -> None:
        """Never raises: what cannot be had is told, and what held before goes on."""
        found: dict[str, Reason] = {}
        self._patience = _AGAIN_SECONDS
        try:
            await self._ensure_issuer()
        except ModelyardError as error:
            found[f"{issuer.SUBJECT} cannot be made: {error.message}; it is tried again"] = Reason.INTERNAL_ERROR
        try:
            self._compute(found)
        except Exception:
            log.exception("what holds for the gateway: a defect of Modelyard; what held before still does")
            return
        try:
            await self._keep()
        except ModelyardError as error:
            found[f"{kept_settings.SUBJECT} cannot be written: {error.message}; tried again"] = Reason.INTERNAL_ERROR
            self._patience = _AGAIN_SECONDS
        self._tell(found)

    def _compute(self, found: dict[str, Reason]) -> None:
        """Stand anew, and gather what is wrong."""
        wanted = self._settings()
        if self._unreadable:
            instead = "the last good settings stay in force" if wanted else "only tokens of built-in issuers count"
            found[f"{self._unreadable}\n{instead} until that is mended"] = Reason.SETTINGS_INVALID
        self._keys.want(platform.sources(wanted))
        own, problem = self._own()
        self._patience = _until_end(own, self._clock.now()) if own or problem else _AGAIN_SECONDS
        if problem:
            found[problem] = Reason.SETTINGS_INVALID
        standing, problems = platform.stand(self._ground(wanted, own))
        found.update(dict.fromkeys(problems, Reason.SETTINGS_INVALID))
        found.update(dict.fromkeys(self._keys.problems().values(), Reason.ISSUER_UNREACHABLE))
        if standing.platform.tls != platform.CLOSED:
            self._tls = (_tls_settings(wanted), standing.platform.tls)
        if standing != self._last:
            self._stand(standing)
            self._last = standing
            log.info("in force: %s", _summary(standing))

    def _ground(self, wanted: Settings | None, own: OwnIssuer | None) -> Ground:
        now = self._clock.now()
        asked, shown = self._tls
        place = self._place()
        return Ground(
            settings=wanted,
            loopback=place.loopback,
            keys=self._keys.known(),
            own=own.keys(now) if own else "",
            accounts=place.accounts,
            accounts_url=place.accounts_url,
            revoked=tuple(each.id for each in own.pruned(now).revoked) if own else (),
            secrets={name: self._secret(name) for name in platform.named_secrets(wanted)},
            tls=shown if asked == _tls_settings(wanted) else None,
            now=now,
        )

    def _settings(self) -> Settings | None:
        """Those in force: what the ConfigMap says, else the last that could be read. None: there never were any."""
        stored = self._configmaps.cache.get(_SETTINGS)
        version = "" if stored is None else str(stored["metadata"]["resourceVersion"])
        before, good = self._read
        if version == before:
            return good
        if before is None:
            good = self._last_good(is_new=stored is None)
        try:
            if stored is not None:
                good, self._unreadable = _parsed(stored), ""
            elif before is not None or self._kept.stored is not None:
                self._unreadable = _GONE
        except UserError as error:
            self._unreadable = error.message
        self._read = (version, good)
        return good

    def _last_good(self, *, is_new: bool) -> Settings | None:
        """Those of an earlier server. is_new: there are none either that could be in force instead."""
        if self._kept.stored is None:
            return Settings() if is_new else None
        try:
            return settings.parse(self._kept.text())
        except UserError as error:
            log.warning("the last settings that were in order are not known: %s", error.message)
            return None

    async def _keep(self) -> None:
        """Keep what is in force, or that nothing was ever in order."""
        stored = self._configmaps.cache.get(_SETTINGS)
        if stored is None or (self._unreadable and self._kept.stored is not None):
            return
        await self._kept.keep(None if self._unreadable else stored["data"][settings.KEY])

    def _own(self) -> tuple[OwnIssuer | None, str]:
        """Our issuer, and what is wrong with it."""
        stored = self._secrets.cache.get(_ISSUER) or self._made
        if stored is None:
            return None, ""
        try:
            return issuer.read(stored), ""
        except UserError as error:
            return None, error.message

    async def _ensure_issuer(self) -> None:
        """Make the Secret when there is none; it was deleted to end all tokens, or never was."""
        if _ISSUER not in self._secrets.cache and self._made is None:
            body = issuer.secret(OwnIssuer(key=ec.generate_private_key(ec.SECP256R1())))
            try:
                self._made = await self._client.create(SECRETS, body)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise

    def _secret(self, name: str) -> Mapping[str, bytes]:
        stored = self._secrets.cache.get((settings.NAMESPACE, name), {}).get("data") or {}
        found = {}
        for key, encoded in stored.items():
            with contextlib.suppress(binascii.Error, TypeError, ValueError):
                found[key] = base64.b64decode(encoded, validate=True)
        return found

    def _tell(self, found: dict[str, Reason]) -> None:
        """What is new, once each; and when everything is in order again."""
        about = self._configmaps.cache.get(_SETTINGS) or self._kept.stored
        for message, reason in found.items():
            if message not in self._told:
                log.warning("%s", message)
                if about is not None:
                    self._recorder.record(about, "Warning", reason, message)
        if self._told and not found:
            log.info("%s, and what it needs, is in order again", settings.SUBJECT)
        news = (about or {}).get("metadata", {}).get("resourceVersion"), self._last and _summary(self._last)
        if about is not None and not found and news != self._announced:
            self._recorder.record(about, "Normal", Reason.SETTINGS_APPLIED, f"in force: {news[1]}")
            self._announced = news
        self._told = found


def _parsed(stored: Object) -> Settings:
    """Raises UserError. A ConfigMap without our key is a spelling mistake, never a wish for the defaults."""
    text = (stored.get("data") or {}).get(settings.KEY)
    if not isinstance(text, str):
        raise UserError(f"{settings.SUBJECT} has no key {settings.KEY} in data: put the settings there")
    return settings.parse(text)


def _until_end(own: OwnIssuer | None, now: float) -> float | None:
    """Seconds until it is to be looked at again, since something of it ends by itself; None: nothing does."""
    end = own.next_end(now) if own else None
    return None if end is None else min(max(0.0, end - now), _LONGEST_WAIT_SECONDS)


def _tls_settings(wanted: Settings | None) -> Any:
    return wanted.gateway.tls if wanted else None


def _summary(standing: Standing) -> str:
    names = ", ".join(each.name + ("" if each.keys else " (no keys yet)") for each in standing.platform.issuers)
    return f"authentication {standing.authentication}, floor {standing.floor}, issuers {names}"
