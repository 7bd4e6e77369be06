"""List and watch one resource into a cache that ends right whatever the server does.

Source: k8s.io/client-go/tools/cache/reflector.go; the faults it must survive are in tests/local/kube.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import aiohttp

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError
from modelyard.control.kube.answers import versioned
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
    """Keeps `cache` (by namespace and name) like the server's state; handlers get (place, old, new).

    namespace: the only one that is looked at; None: all. kept: what is kept of an object, and told, with its metadata.
    """

    def __init__(  # noqa: PLR0913  all but three have defaults
        self,
        client: Client,
        resource: Resource,
        *,
        clock: Clock,
        namespace: str | None = None,
        label_selector: str | None = None,
        kept: Callable[[Object], Object] = lambda body: body,
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
        self._namespace = namespace
        self._clock = clock
        self._selector = {"labelSelector": label_selector} if label_selector else {}
        self._watch_seconds = watch_seconds
        self._idle_grace = idle_grace
        self._first_pause = first_pause
        self._kept = kept
        self._cache: dict[Place, Object] = {}
        self._handlers: list[Handler] = []
        self._version: str | None = None
        self._heard = False
        self._scope: asyncio.Timeout | None = None
        self._asking: list[asyncio.Future[None]] = []
        self._promised: list[asyncio.Future[None]] = []

    @property
    def cache(self) -> Mapping[Place, Object]:
        """What the server holds, as far as seen. Treat the objects as constants."""
        return MappingProxyType(self._cache)

    def add_handler(self, handler: Handler) -> None:
        """Call it for every change from now on."""
        self._handlers.append(handler)

    async def confirm(self) -> None:
        """List again, and return when the cache has everything that the server held when this was called.

        For who is about to act on what it has followed for long: a connection that is dead is noticed after minutes.
        Handlers hear only of what is really new. Somebody runs `run`, or will.
        """
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._scope is not None and not self._asking:
            self._scope.reschedule(asyncio.get_running_loop().time())
        self._asking.append(asked)
        await asked

    async def run(self) -> None:
        """Follow the server until cancelled; never raises otherwise."""
        while True:
            # Whoever asked before this moment gets what is listed from now on.
            self._promised += self._asking
            self._asking.clear()
            try:
                async with asyncio.timeout(None) as self._scope:
                    await self._follow()
            except TimeoutError:
                self._version = None
            finally:
                self._scope = None

    async def _follow(self) -> None:
        """Until it is interrupted."""
        pause = self._first_pause
        while True:
            began = self._clock.monotonic()
            asked = 0.0
            self._heard = False
            try:
                if self._version is None:
                    await self._list()
                    began = self._clock.monotonic()
                await self._watch()
                if self._clock.monotonic() - began >= 1.0:
                    pause = self._first_pause
                    continue  # an orderly end
            except ApiError as error:
                if error.status == 410:
                    self._version = None  # deletions may have been missed: list again
                asked = error.retry_after or 0.0
                log.info("watching %s: %s", self._resource.plural, error)
            except ValueError as error:
                self._version = None  # that event would come again: list, to get past it
                log.info("watching %s: %s", self._resource.plural, error)
            except (ModelyardError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("watching %s: %s", self._resource.plural, str(error) or type(error).__name__)
            self.restarts += 1
            # A list alone is no progress: a server whose watches all fail at once would be listed without end.
            if self._heard or self._clock.monotonic() - began > _STEADY_SECONDS:
                pause = self._first_pause
            await self._clock.sleep(max(asked, jittered(pause)))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _list(self) -> None:
        seen: set[Place] = set()
        parameters = {**self._selector, "limit": str(_PAGE)}
        while True:
            try:
                page = await self._client.list(self._resource, self._namespace, **parameters)
            except ApiError as error:
                if error.status != 410 or "continue" not in parameters:
                    raise
                # Pages expire faster than they can be read: everything at once, as client-go's pager does.
                seen, parameters = set(), dict(self._selector)
                continue
            for item in _items(page):
                seen.add(_place(item))
                self._put(item)
            metadata = page["metadata"]
            if not metadata.get("continue"):
                break
            parameters["continue"] = str(metadata["continue"])
        for place in [place for place in self._cache if place not in seen]:
            self._remove(place)  # deleted while nobody looked
        self._version = str(metadata["resourceVersion"])
        self.relists += 1
        self.synced.set()
        while self._promised:
            asked = self._promised.pop()
            if not asked.done():
                asked.set_result(None)

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
        async with aclosing(self._client.watch(self._resource, self._namespace, parameters, idle=idle)) as events:
            async for event in events:
                kind, body = event["type"], event["object"]
                self._heard = True
                self.last_event_at = self._clock.monotonic()
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
        self._cache[place] = body = self._kept(body)
        self._tell(place, old, body)

    def _remove(self, place: Place) -> None:
        old = self._cache.pop(place, None)
        if old is not None:
            self._tell(place, old, None)

    def _tell(self, place: Place, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            try:
                handler(place, old, new)
            except Exception:
                log.exception("a handler of %s: a defect of Modelyard; the other handlers go on", self._resource.plural)


def _items(page: Object) -> list[Object]:
    items = page.get("items") or []
    metadata = page.get("metadata")
    if not isinstance(items, list) or not isinstance(metadata, dict) or "resourceVersion" not in metadata:
        raise ValueError("the API server answered a list request with something that is no list")
    return [versioned(item) for item in items]


def _place(body: Object) -> Place:
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
