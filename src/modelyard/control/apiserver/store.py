"""The versioned, watchable object store, seen from the event loop: nothing here waits for the disk on it.

Guarantees, as etcd gives them to Kubernetes: one total order of changes, compare-and-swap by revision, durable before
acknowledged, watches that are ordered and without gaps from any revision that is not compacted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from modelyard.base.clock import Clock
from modelyard.control.apiserver import database
from modelyard.control.apiserver.database import Change, Database, Event, Key, Page, Raced, Range, Stored

Result = TypeVar("Result")
KEEP_REVISIONS = 10_000
KEEP_SECONDS = 600.0
_REPLAY_ROWS = 500
_BATCH = 256
_QUEUE = 4096


class Closed(Exception):
    """The store was closed while somebody waited for it."""


class Watch:
    """Changes in order. Bounded: a reader that is too slow is cut off and has to start again from `revision`."""

    def __init__(
        self, store: "Store", resource: str | None, namespace: str | None, since: int, upto: int, capacity: int
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._replayed = since
        self._upto = upto
        self._capacity = capacity
        self._queue: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._ended = False
        self._last = since

    @property
    def revision(self) -> int:
        """Every change up to here that concerns this watch was handed out."""
        if self._replayed < self._upto or self._queue or self._ended:
            return self._last
        return max(self._last, self._store.published)

    async def next(self) -> list[Event]:
        """At least one change, as soon as there is one; empty when the watch ended. Safe to cancel.

        Raises database.Compacted when changes that were to be replayed are gone.
        """
        while self._replayed < self._upto and not self._ended:
            found = await self._store.replay(
                self._resource, self._namespace, self._replayed, self._upto, limit=_REPLAY_ROWS
            )
            self._replayed = found[-1].revision if len(found) == _REPLAY_ROWS else self._upto
            if found:
                self._last = found[-1].revision
                return found
        while not self._queue and not self._ended:
            self._wake.clear()
            await self._wake.wait()
        events = list(self._queue)
        self._queue.clear()
        if events:
            self._last = events[-1].revision
        return events

    def offer(self, event: Event) -> None:
        """From the store: a change was committed."""
        if self._ended or event.revision <= self._replayed:
            return
        if self._resource not in (None, event.key.resource) or self._namespace not in (None, event.key.namespace):
            return
        if len(self._queue) >= self._capacity:
            self._queue.clear()
            self.end()
            return
        self._queue.append(event)
        self._wake.set()

    def end(self) -> None:
        """Wake the reader up for the last time."""
        self._ended = True
        self._wake.set()


class Store:
    """One writer thread, one reader thread, any number of watches. Use as an async context manager, or close() it."""

    def __init__(self, writer: Database, reader: Database) -> None:
        self._writer, self._reader = writer, reader
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        shared = writer is reader
        self._reading = self._writing if shared else ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._waiting: deque[tuple[Change, asyncio.Future[Event]]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._watches: set[Watch] = set()
        self._observers: list[Callable[[Event], None]] = []
        self._closed = False
        self.published = writer.bounds()[1]

    @classmethod
    def open(cls, path: Path, clock: Clock) -> Self:
        """A store in a file. Raises UserError when the file is damaged, newer than this release or not accessible."""
        return cls(*database.open_file(path, clock.now))

    @classmethod
    def memory(cls, clock: Clock) -> Self:
        """A store that forgets."""
        only = database.open_memory(clock.now)
        return cls(only, only)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the watches, finish the writes that were accepted, close the file."""
        if self._closed:
            return
        self._closed = True
        self.end_watches()
        if self._pump is not None:
            await asyncio.wait([self._pump])
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._reader.close)
        if self._writer is not self._reader:
            await loop.run_in_executor(self._writing, self._writer.close)
        self._writing.shutdown()
        self._reading.shutdown()

    def observe(self, call: Callable[[Event], None]) -> None:
        """Call it, which must be quick, with every change from now on, before whoever wrote it is answered."""
        self._observers.append(call)

    def end_watches(self) -> None:
        """End every watch that is open now."""
        for watch in tuple(self._watches):
            watch.end()

    async def get(self, key: Key) -> Stored | None:
        """The newest version, if it exists."""
        return await self._read(lambda: self._reader.get(key))

    async def page(self, range_: Range) -> Page:
        """Part of a list. Raises database.Compacted and database.Unreached."""
        return await self._read(lambda: self._reader.page(range_))

    async def older(self, resource: str, before: float, limit: int) -> list[Stored]:
        """Objects last written before a time (seconds since 1970)."""
        return await self._read(lambda: self._reader.older(resource, before, limit))

    async def replay(
        self, resource: str | None, namespace: str | None, after: int, upto: int, *, limit: int
    ) -> list[Event]:
        """Past changes, oldest first. Raises database.Compacted."""
        return await self._read(lambda: self._reader.replay(resource, namespace, after, upto, limit))

    async def write(self, change: Change) -> Event:
        """Write durably. Raises database.Raced and database.DiskFull. If cancelled, it may or may not be written."""
        if self._closed:
            raise Closed
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, future))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._write_waiting())
        return await future

    @asynccontextmanager
    async def watch(
        self, resource: str | None, namespace: str | None, since: int, *, capacity: int = _QUEUE
    ) -> AsyncIterator[Watch]:
        """Changes after `since` of one resource (None: all) and namespace (None: all).

        Raises database.Compacted and database.Unreached for a revision that cannot be continued from.
        """
        # Subscribing and reading `published` happen without a pause between them: what is committed later is offered.
        watch = Watch(self, resource, namespace, since, self.published, capacity)
        self._watches.add(watch)
        try:
            if since > self.published:
                # Readers may know a revision that was committed and not yet published here.
                await self._read(lambda: self._reader.page(Range(resource="", limit=0, at=since)))
            else:
                await self.replay(resource, namespace, since, since, limit=0)
            if self._closed:
                watch.end()
            yield watch
        finally:
            self._watches.discard(watch)

    async def compact(self, now: float, keep: int = KEEP_REVISIONS, seconds: float = KEEP_SECONDS) -> None:
        """Forget superseded versions that are neither among the newest `keep` revisions nor younger than `seconds`."""
        more = True
        while more:  # in steps, so that writes get their turn between them
            more = await self._run(self._writing, lambda: self._writer.compact(keep, now - seconds))

    async def _write_waiting(self) -> None:
        """Everything that came while the previous transaction was written goes into the next one."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            changes = [change for change, _ in batch]
            try:
                results = await self._run(self._writing, partial(self._writer.apply, changes))
            except Exception as error:  # whatever it is belongs to the callers; the next batch may succeed
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Event):
                    self._publish(result)
                if not future.done():
                    if isinstance(result, Raced):
                        future.set_exception(result)
                    else:
                        future.set_result(result)

    def _publish(self, event: Event) -> None:
        self.published = event.revision
        for observe in self._observers:
            observe(event)
        for watch in tuple(self._watches):
            watch.offer(event)

    async def _read(self, call: Callable[[], Result]) -> Result:
        if self._closed:
            raise Closed
        return await self._run(self._reading, call)

    async def _run(self, pool: ThreadPoolExecutor, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(pool, call)
