"""The keys of all issuers: fetched in time, kept on disk for the time that an issuer is down."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater
from modelyard.control.gateway.jwks import Fetched, fetch
from modelyard.control.ir.platform import KeySource
from modelyard.control.plan import keys as plan
from modelyard.control.plan.keys import Known
from modelyard.wire import jwks

log = logging.getLogger(__name__)
Fetch = Callable[[KeySource], Awaitable[Fetched]]
_LONGEST_WAIT_SECONDS = 3600.0


class IssuerKeys:
    """folder: a private one, for key sets. changed: called after a fetch that told something new.

    An issuer that is slow or down holds nobody up: each is asked by itself, and one at a time.
    """

    def __init__(
        self, folder: Path, clock: Clock, changed: Callable[[], None] = lambda: None, fetching: Fetch = fetch
    ) -> None:
        self.changed = changed
        self._folder = folder
        self._clock = clock
        self._fetch = fetching
        self._known: dict[KeySource, Known] = {}
        self._busy: set[KeySource] = set()
        self._wake = asyncio.Event()

    def want(self, sources: tuple[KeySource, ...]) -> None:
        """Exactly these from now on. One that was not wanted before begins with what the disk has of it."""
        now = self._clock.monotonic()
        self._known = {each: self._known.get(each) or self._remembered(each, now) for each in sources}
        self._wake.set()

    def known(self) -> dict[str, str]:
        """Key sets by the issuers' names, of those whose keys are known."""
        return {source.name: known.keys for source, known in self._known.items() if known.keys}

    def problems(self) -> dict[str, str]:
        """What is wrong with an issuer, by name; those in order are left out."""
        return {source.name: _told(source, known) for source, known in self._known.items() if known.problem}

    def hint(self) -> None:
        """A token named a key that nobody knows: issuers may have new ones."""
        now = self._clock.monotonic()
        self._known = {source: plan.hinted(known, now) for source, known in self._known.items()}
        self._wake.set()

    async def run(self) -> None:
        """Fetch what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                now = self._clock.monotonic()
                self._age(now)
                for source, known in self._known.items():
                    if known.due <= now and source not in self._busy:
                        self._busy.add(source)
                        group.create_task(self._renew(source))
                await self._pause(now)

    async def _pause(self, now: float) -> None:
        """Until something is due, or somebody calls."""
        idle = (known for source, known in self._known.items() if source not in self._busy)
        due = min((min(each.due, each.ends) for each in idle), default=now + _LONGEST_WAIT_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(due - now, _LONGEST_WAIT_SECONDS))):
                await self._wake.wait()

    async def _renew(self, source: KeySource) -> None:
        before = self._known.get(source)
        try:
            if before is not None:
                self._put(source, plan.begun(before, self._clock.monotonic()))
                await self._once(source)
        finally:
            self._busy.discard(source)
            self._wake.set()

    async def _once(self, source: KeySource) -> None:
        try:
            found = await self._fetch(source)
        except RetryLater as error:
            self._failed(source, error.message)
            return
        except Exception as error:
            log.exception("the keys of issuer %s: a defect of Modelyard", source.name)
            self._failed(source, f"a defect of Modelyard: {error!r}; the server's log has the details")
            return
        known = self._known.get(source)
        if known is None:
            return  # no longer wanted
        self._put(source, plan.fetched(known, found.keys, found.lifetime, self._clock.monotonic()))
        if known.keys != found.keys:
            for why in found.skipped:
                log.warning("issuer %s: %s", source.name, why)
            log.info("issuer %s: its keys are known", source.name)
        if known.keys != found.keys or known.problem:
            self.changed()
        await asyncio.to_thread(self._remember, source, found.keys)

    def _failed(self, source: KeySource, why: str) -> None:
        known = self._known.get(source)
        if known is None:
            return
        spread = random.uniform(0.5, 1.5)  # noqa: S311  spreads load, hides nothing
        self._put(source, plan.failed(known, why, self._clock.monotonic(), spread))
        if known.problem != why:
            self.changed()

    def _put(self, source: KeySource, known: Known) -> None:
        if source in self._known:
            self._known[source] = known

    def _age(self, now: float) -> None:
        aged = {source: plan.aged(known, now) for source, known in self._known.items()}
        if aged != self._known:
            self._known = aged
            self.changed()

    def _remembered(self, source: KeySource, now: float) -> Known:
        """From the disk. A file that cannot be read is no reason to wait: the keys are fetched anyway."""
        try:
            body = json.loads(self._path(source).read_text())
            keys, when = jwks.read(str(body["keys"]).encode()).text, float(body["fetched"])
        except FileNotFoundError:
            return Known(due=now)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("the kept keys of issuer %s cannot be read: %s", source.name, error)
            return Known(due=now)
        return plan.remembered(keys, self._clock.now() - when, now)

    def _remember(self, source: KeySource, keys: str) -> None:
        path = self._path(source)
        draft = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps({"issuer": source.url, "fetched": self._clock.now(), "keys": keys}))
            draft.replace(path)
        except OSError as error:
            log.warning("the keys of issuer %s cannot be kept: %s", source.name, error)

    def _path(self, source: KeySource) -> Path:
        """Another address, another file: keys never count for an issuer that they were not fetched for."""
        said = json.dumps([source.name, source.url, source.jwks_uri, source.certificate_authority])
        return self._folder / f"{source.name}-{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"


def _told(source: KeySource, known: Known) -> str:
    state = "the keys known before still count" if known.keys else "none of its tokens is accepted"
    return f"the keys of issuer {source.name} cannot be fetched: {known.problem}; {state}, and it is asked again"
