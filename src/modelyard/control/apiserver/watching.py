"""A watch as a stream of lines.

Source: the watch cache of Kubernetes; KEP-956 (bookmarks), KEP-3157 (initial events).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from modelyard.base.clock import Clock
from modelyard.control.apiserver import reading, status
from modelyard.control.apiserver.database import Compacted, Event, EventType, Unreached
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.requests import Form, ListOptions
from modelyard.control.apiserver.store import Store, Watch

Object = dict[str, Any]
BOOKMARK_SECONDS = 60.0
_LEAST_SECONDS = 1800
_STALLED_SECONDS = 30.0


class Lines:
    """Turns changes into the lines that one client gets. allowed: whether it may still see them."""

    def __init__(
        self, kind: Kind, options: ListOptions, form: Form, clock: Clock, allowed: Callable[[], bool] = lambda: True
    ) -> None:
        self.allowed = allowed
        self._kind = kind
        self._filter = reading.filter_of(kind, options)
        self._form = form
        self._clock = clock
        self._first = True

    def of(self, event: Event) -> bytes:
        """A change as the selectors show it: into their sight, within it, or out of it; empty when outside."""
        type_, body = event.type, event.body
        if self._filter is not None:
            was = event.before is not None and self._filter(event.before)
            now = event.type != "DELETED" and self._filter(event.body)
            if not was and not now:
                return b""
            type_ = "MODIFIED" if was and now else "ADDED" if now else "DELETED"
            if type_ == "DELETED" and event.type != "DELETED" and event.before is not None:
                body = _at(event.before, event.revision)  # what left is shown as it was seen last
        return self.line(type_, body, event.revision)

    def line(self, type_: EventType, body: bytes, revision: int) -> bytes:
        """One event with an object of the kind, in the form that was asked for."""
        return _line(type_, self._shown([body], revision))

    def bookmark(self, revision: int, *, initial: bool = False) -> bytes:
        """Says that everything up to a version was sent."""
        metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self._form.table:
            return _line("BOOKMARK", self._shown([], revision))
        body = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}
        return _line("BOOKMARK", msgspec.json.encode(body))

    def _shown(self, bodies: list[bytes], revision: int) -> bytes:
        if not self._form.table:
            return bodies[0]
        metadata = {"resourceVersion": str(revision)}
        first, self._first = self._first, False
        return reading.table_body(self._kind, bodies, self._form, self._clock.now(), metadata, with_columns=first)


def error_line(error: status.StatusError) -> bytes:
    """The last line of a watch that cannot go on."""
    return _line("ERROR", msgspec.json.encode(error.status()))


def _line(type_: str, body: bytes) -> bytes:
    return b'{"type":"' + type_.encode() + b'","object":' + body + b"}\n"


def _at(body: bytes, revision: int) -> bytes:
    found: Object = msgspec.json.decode(body)
    found["metadata"]["resourceVersion"] = str(revision)
    return msgspec.json.encode(found)


async def stream(
    store: Store,
    kind: Kind,
    namespace: str | None,
    options: ListOptions,
    lines: Lines,
    *,
    bookmark_seconds: float = BOOKMARK_SECONDS,
) -> AsyncGenerator[bytes, None]:
    """The lines of a watch until its time is over, the client is too slow, or the server stops.

    The first item is empty and comes as soon as the watch is accepted. Raises StatusError 410, before it or later.
    """
    since, bodies = options.revision or 0, list[bytes]()
    if options.initial_events:
        everything = ListOptions(labels=options.labels, fields=options.fields)
        since, bodies, _ = await reading.collect(store, kind, namespace, everything)
    try:
        async with (
            store.watch(kind.resource_name, namespace, since) as watch,
            aclosing(_changes(watch, options, lines, bookmark_seconds)) as changes,
        ):
            yield b""
            for part in reading.chunks(bodies):
                yield b"".join(lines.line("ADDED", body, since) for body in part)
                await asyncio.sleep(0)
            if options.bookmarks and options.send_initial_events:
                yield lines.bookmark(since, initial=True)
            async for text in changes:
                yield text
    except Compacted as error:
        raise reading.too_old(since, error.oldest) from error
    except Unreached as error:
        # 410, so that every client lists again: the version belongs to data that are not here any more.
        raise status.expired(f"resource version {since} is newer than any here ({error.newest}): list again") from error


async def _changes(
    watch: Watch, options: ListOptions, lines: Lines, bookmark_seconds: float
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    spread = _LEAST_SECONDS * (1 + random.random())  # noqa: S311  so that watches do not end together
    end = loop.time() + (options.timeout_seconds or spread)
    marked = loop.time() + bookmark_seconds
    while True:
        try:
            async with asyncio.timeout_at(min(marked, end)):
                events = await watch.next()
        except TimeoutError:
            if not lines.allowed():
                return
            if options.bookmarks:
                yield lines.bookmark(watch.revision)
            if loop.time() >= end:
                return
            marked = loop.time() + bookmark_seconds
            continue
        if not events or not lines.allowed():
            return
        text = b"".join(map(lines.of, events))
        if text:
            yield text


async def serve(
    request: web.Request, store: Store, kind: Kind, namespace: str | None, options: ListOptions, lines: Lines
) -> web.StreamResponse:
    """Answer a watch request."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
    try:
        async with aclosing(stream(store, kind, namespace, options, lines)) as texts:
            async for text in texts:
                if not response.prepared:
                    await response.prepare(request)
                if text:
                    # A client that reads nothing for so long is gone; its next watch starts where this one ended.
                    async with asyncio.timeout(_STALLED_SECONDS):
                        await response.write(text)
    except status.StatusError as error:
        if not response.prepared:
            raise
        await response.write(error_line(error))
    except (TimeoutError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
    return response
