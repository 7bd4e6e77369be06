"""The shell of `garbage`: follows the store, does what was decided, and keeps the store from growing for ever."""

import logging
import sqlite3
from typing import Any

import msgspec

from modelyard.base.clock import Clock, timestamp
from modelyard.control.apiserver import lifecycle
from modelyard.control.apiserver.database import Compacted, DiskFull, Key, Raced, Range, Stored
from modelyard.control.apiserver.garbage import (
    Delete,
    DropFinalizer,
    DropOwners,
    EndNamespace,
    Graph,
    Node,
    Owner,
    Step,
)
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.objects import Objects, decoded
from modelyard.control.apiserver.requests import Catalog
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.store import Store

log = logging.getLogger(__name__)
Object = dict[str, Any]
_PAGE = 500
_QUEUE = 65_536
_LONGEST_PAUSE = 30.0
_MAINTENANCE_SECONDS = 60.0
_FAILURES = (DiskFull, StatusError, sqlite3.Error)
_EVENT_SECONDS = 3600.0
"""Kubernetes keeps events for an hour."""


class _Reference(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    name: str
    uid: str
    block_owner_deletion: bool | None = False


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str
    owner_references: list[_Reference] | None = None
    finalizers: list[str] | None = None
    deletion_timestamp: str | None = None


class _Envelope(msgspec.Struct):
    metadata: _Metadata


_decoder = msgspec.json.Decoder(_Envelope)


class Collector:
    """Deletes what lost its owners or its namespace. `run` and `maintain` go on until cancelled."""

    def __init__(self, store: Store, objects: Objects, catalog: Catalog, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._catalog = catalog
        self._clock = clock
        self._kinds = {kind.resource_name: kind for kind in catalog.kinds}

    async def run(self) -> None:
        """Follow the store; after a failure look at everything again."""
        pause = 0.5
        while True:
            started = self._clock.monotonic()
            try:
                await self._follow()
            except (Compacted, *_FAILURES) as error:
                log.info("collecting garbage starts again: %s", error)
            if self._clock.monotonic() - started > _LONGEST_PAUSE:
                pause = 0.5
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def maintain(self) -> None:
        """Forget old versions and old events, once a minute."""
        while True:
            await self._clock.sleep(_MAINTENANCE_SECONDS)
            now = self._clock.now()
            try:
                for stored in await self._store.older("events", now - _EVENT_SECONDS, _PAGE):
                    await self._mark(self._kinds["events"], stored, Delete("Background"))
                await self._store.compact(now)
            except _FAILURES as error:
                log.warning("old versions and events could not be forgotten: %s", str(error) or "the disk is full")

    async def _follow(self) -> None:
        graph = Graph()
        revision = await self._load(graph)
        async with self._store.watch(None, None, revision, capacity=_QUEUE) as watch:
            await self._settle(graph, set(graph.keys()))
            while events := await watch.next():
                affected: set[Key] = set()
                for event in events:
                    if event.type == "DELETED":
                        affected |= graph.remove(event.key)
                    else:
                        affected |= graph.put(self._node(Stored(event.key, event.revision, event.body)))
                await self._settle(graph, affected)

    async def _load(self, graph: Graph) -> int:
        revision = (await self._store.page(Range(resource="", limit=0))).revision
        for resource in self._kinds:
            after = None
            while True:
                page = await self._store.page(Range(resource=resource, after=after, limit=_PAGE, at=revision))
                for stored in page.items:
                    graph.put(self._node(stored))
                if not page.more:
                    break
                after = (page.items[-1].key.namespace, page.items[-1].key.name)
        return revision

    async def _settle(self, graph: Graph, keys: set[Key]) -> None:
        for key in keys:
            step = graph.decide(key)
            if step is not None:
                await self._do(key, graph.revision(key), step)

    async def _do(self, key: Key, revision: int, step: Step) -> None:
        stored = await self._store.get(key)
        kind = self._kinds.get(key.resource)
        if stored is None or kind is None or stored.revision != revision:
            return  # the newer version comes as a change, and is looked at then
        await self._mark(kind, stored, step)

    async def _mark(self, kind: Kind, stored: Stored, step: Step) -> None:
        try:
            new = changed(kind, decoded(stored), step, timestamp(self._clock.now()))
            await self._objects.put(kind, stored, new)
        except Raced:
            log.debug("%s changed while garbage was collected", stored.key)

    def _node(self, stored: Stored) -> Node:
        metadata = _decoder.decode(stored.body).metadata
        return Node(
            key=stored.key,
            revision=stored.revision,
            uid=metadata.uid,
            owners=tuple(self._owner(each, stored.key.namespace) for each in metadata.owner_references or ()),
            finalizers=tuple(metadata.finalizers or ()),
            deleting=metadata.deletion_timestamp is not None,
        )

    def _owner(self, reference: _Reference, namespace: str) -> Owner:
        kind = self._catalog.named(reference.api_version, reference.kind)
        # A namespaced owner of an object without a namespace cannot be resolved either.
        known = kind is not None and bool(namespace or not kind.namespaced)
        key = Key(kind.resource_name, namespace if kind.namespaced else "", reference.name) if kind and known else None
        return Owner(reference.uid, key, bool(reference.block_owner_deletion))


def changed(kind: Kind, body: Object, step: Step, now: str) -> Object:
    """The object after a step."""
    metadata = body["metadata"]
    match step:
        case Delete(propagation=propagation):
            return lifecycle.marked(kind, body, propagation, now)
        case DropOwners(uids=uids):
            rest = [each for each in metadata["ownerReferences"] if each["uid"] not in uids]
            return {**body, "metadata": _with(metadata, "ownerReferences", rest)}
        case DropFinalizer(name=name):
            rest = [each for each in metadata["finalizers"] if each != name]
            return {**body, "metadata": _with(metadata, "finalizers", rest)}
        case EndNamespace():
            return {**body, "spec": {**body.get("spec", {}), "finalizers": []}}


def _with(metadata: Object, field: str, values: list[Any]) -> Object:
    rest = {key: value for key, value in metadata.items() if key != field}
    return {**rest, field: values} if values else rest
