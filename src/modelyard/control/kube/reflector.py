"""List and watch one resource into a cache that ends right whatever the server does.

Source: k8s.io/client-go/tools/cache/reflector.go; the faults it must survive are in tests/local/kube.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import aiohttp

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError
from modelyard.control.kube.client import ApiError, Client, jittered
from modelyard.control.kube.resources import Resource

log = logging.getLogger(__name__)
Object = dict[str, Any]
Place = tuple[str, str]
Handler = Callable[[Place, Object | None, Object | None], None]
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 10.0
_PAGE = 500


class Reflector:
    """Keeps `cache` (by namespace and name) like the server's state; handlers get (place, old, new)."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        clock: Clock,
        label_selector: str | None = None,
        watch_seconds: float = 300.0,
        idle_grace: float = 15.0,
        first_pause: float = 0.5,
    ) -> None:
        self.synced = asyncio.Event()
        self.relists = 0
        self.restarts = 0
        self.last_event_at = clock.monotonic()
        self._client = client
        self._resource = resource
        self._clock = clock
        self._selector = {"labelSelector": label_selector} if label_selector else {}
        self._watch_seconds = watch_seconds
        self._idle_grace = idle_grace
        self._first_pause = first_pause
        self._cache: dict[Place, Object] = {}
        self._handlers: list[Handler] = []
        self._version: str | None = None

    @property
    def cache(self) -> Mapping[Place, Object]:
        """What the server holds, as far as seen. Treat the objects as constants."""
        return MappingProxyType(self._cache)

    def add_handler(self, handler: Handler) -> None:
        """Call it for every change from now on."""
        self._handlers.append(handler)

    async def run(self) -> None:
        """Follow the server until cancelled; never raises otherwise."""
        pause = self._first_pause
        while True:
            started = self._clock.monotonic()
            asked: float | None = None
            try:
                if self._version is None:
                    await self._list()
                    pause = self._first_pause
                await self._watch()
                quick = self._clock.monotonic() - started < 1.0
                if not quick:
                    pause = self._first_pause
                    continue  # an orderly end
            except ApiError as error:
                if error.status == 410:
                    self._version = None  # deletions may have been missed: list again
                asked = error.retry_after
                log.info("watching %s: %s", self._resource.plural, error)
            except (ModelyardError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                log.info("watching %s: %s", self._resource.plural, str(error) or type(error).__name__)
            self.restarts += 1
            if self._clock.monotonic() - started > _STEADY_SECONDS:
                pause = self._first_pause
            await self._clock.sleep(asked if asked is not None else jittered(pause))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _list(self) -> None:
        seen: set[Place] = set()
        parameters = {**self._selector, "limit": str(_PAGE)}
        while True:
            page = await self._client.list(self._resource, None, **parameters)
            for item in page.get("items") or ():
                seen.add(_place(item))
                self._put(item)
            token = page["metadata"].get("continue")
            if not token:
                break
            parameters["continue"] = token
        for place in [place for place in self._cache if place not in seen]:
            self._remove(place)  # deleted while nobody looked
        self._version = page["metadata"]["resourceVersion"]
        self.relists += 1
        self.synced.set()

    async def _watch(self) -> None:
        # Random, so that many watches do not end together.
        seconds = max(1.0, self._watch_seconds * random.uniform(1.0, 2.0))  # noqa: S311
        parameters = {
            **self._selector,
            "resourceVersion": self._version or "",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(seconds)),
        }
        idle = min(seconds, self._watch_seconds) + self._idle_grace
        async for event in self._client.watch(self._resource, None, parameters, idle=idle):
            kind, body = event.get("type"), event["object"]
            self.last_event_at = self._clock.monotonic()
            if kind == "ERROR":
                raise ApiError(int(body.get("code", 500)), str(body.get("reason", "")), str(body.get("message", "")))
            if kind == "DELETED":
                self._remove(_place(body))
            elif kind != "BOOKMARK":
                self._put(body)
            self._version = body["metadata"]["resourceVersion"]

    def _put(self, body: Object) -> None:
        place = _place(body)
        old = self._cache.get(place)
        if old is not None and old["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
            return
        body["metadata"].pop("managedFields", None)
        body.setdefault("apiVersion", self._resource.api_version)
        body.setdefault("kind", self._resource.kind)
        self._cache[place] = body
        self._tell(place, old, body)

    def _remove(self, place: Place) -> None:
        old = self._cache.pop(place, None)
        if old is not None:
            self._tell(place, old, None)

    def _tell(self, place: Place, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            handler(place, old, new)


def _place(body: Object) -> Place:
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
