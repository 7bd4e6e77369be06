"""Create, update and delete: admission around one compare-and-swap of the store."""

import asyncio
import secrets
import uuid
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from modelyard.base.clock import Clock, timestamp
from modelyard.control.apiserver import admission, lifecycle, status
from modelyard.control.apiserver.database import Change, DiskFull, Key, Raced, Stored
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.requests import DeleteOptions, WriteOptions
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.store import Store

Object = dict[str, Any]
NAMESPACES = "namespaces"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_ATTEMPTS = 8


class Written(NamedTuple):
    """What is stored now; created: it was not there before."""

    body: Object
    warnings: tuple[str, ...] = ()
    created: bool = False


class Objects:
    """The write half of the API. Every method raises StatusError and nothing else for what a caller can cause."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._turns: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def read(self, kind: Kind, namespace: str | None, name: str) -> Stored:
        """The newest version. Raises StatusError 404."""
        found = await self._store.get(_key(kind, namespace, name))
        if found is None:
            raise status.not_found(kind, name)
        return found

    async def create(self, kind: Kind, namespace: str | None, body: Object, options: WriteOptions) -> Written:
        """Store a new object, with a name of the server's choice after generateName."""
        metadata = body.get("metadata")
        prefix = metadata.get("generateName") if isinstance(metadata, dict) and not metadata.get("name") else None
        for _ in range(_ATTEMPTS):
            chosen = body
            if isinstance(metadata, dict) and prefix and isinstance(prefix, str):
                suffix = "".join(secrets.choice(_LETTERS) for _ in range(5))
                chosen = {**body, "metadata": {**metadata, "name": prefix[:58] + suffix}}
            try:
                return await self._create(kind, namespace, chosen, options)
            except Raced as race:
                if race.key.resource == kind.resource_name and race.current and not prefix:
                    raise status.already_exists(kind, race.key.name) from race
        raise status.too_many_requests("the namespace is changing too often", 1)

    async def establish(self, kind: Kind, body: Object) -> None:
        """Store an object of the server's own that must exist, unless it does."""
        fresh = lifecycle.created(kind, body, namespace=None, uid=str(uuid.uuid4()), now=timestamp(self._clock.now()))
        try:
            await self._write(Change(key=_key(kind, None, body["metadata"]["name"]), expected=0, body=fresh))
        except Raced:
            return

    async def _create(self, kind: Kind, namespace: str | None, body: Object, options: WriteOptions) -> Written:
        require = await self._active(namespace) if kind.namespaced and namespace is not None else None
        fresh = lifecycle.created(
            kind, body, namespace=namespace, uid=str(uuid.uuid4()), now=timestamp(self._clock.now())
        )
        admitted, warnings = admission.admit(kind, fresh, None, field_validation=options.validation)
        name = admitted["metadata"]["name"]
        lifecycle.refuse_reserved(kind, name)
        if options.guard is not None:
            options.guard(admitted, None)
        measure(kind, admitted)
        key = _key(kind, namespace, name)
        if options.dry_run:
            if await self._store.get(key) is not None:
                raise status.already_exists(kind, name)
            return Written(admitted, tuple(warnings), created=True)
        change = Change(key=key, expected=0, body=admitted, require=require)
        return Written(await self._write(change), tuple(warnings), created=True)

    async def update(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        propose: Callable[[Object], Object],
        options: WriteOptions,
        *,
        subresource: str = "",
    ) -> Written:
        """Replace an object by what `propose` makes of a copy of it.

        Decided again when somebody else was faster, unless the proposal names the version it was made for.
        """
        async with self._turn(_key(kind, namespace, name)):
            return await self._update(kind, namespace, name, propose, options, subresource)

    async def _update(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        propose: Callable[[Object], Object],
        options: WriteOptions,
        subresource: str,
    ) -> Written:
        for _ in range(_ATTEMPTS):
            stored = await self.read(kind, namespace, name)
            current = decoded(stored)
            proposed = lifecycle.updated(kind, propose(deepcopy(current)), current, subresource)
            admitted, warnings = admission.admit(
                kind, proposed, deepcopy(current), subresource=subresource, field_validation=options.validation
            )
            new = lifecycle.counted(kind, admitted, current)
            lifecycle.refuse_reserved(kind, name)
            if options.guard is not None:
                options.guard(new, current)
            if new == current or options.dry_run:
                return Written(new, tuple(warnings))
            measure(kind, new)
            try:
                return Written(await self.put(kind, stored, new), tuple(warnings))
            except Raced:
                continue
        raise status.conflict(kind, name)

    async def put(self, kind: Kind, stored: Stored, new: Object) -> Object:
        """Store the next version of `stored`, or remove it when nobody waits for it. Raises database.Raced."""
        remove = lifecycle.may_go(kind, new)
        return await self._write(Change(key=stored.key, expected=stored.revision, body=new, remove=remove))

    async def delete(self, kind: Kind, namespace: str | None, name: str, options: DeleteOptions) -> Object:
        """A metav1.Status when the object is gone, the object when it has to wait for its finalizers."""
        lifecycle.refuse_protected(kind, name)
        lifecycle.refuse_reserved(kind, name)
        async with self._turn(_key(kind, namespace, name)):
            for _ in range(_ATTEMPTS):
                stored = await self.read(kind, namespace, name)
                current = decoded(stored)
                _check_preconditions(kind, current, options)
                new = lifecycle.marked(kind, current, options.propagation, timestamp(self._clock.now()))
                gone = lifecycle.may_go(kind, new)
                if new != current and not options.dry_run:
                    try:
                        new = await self.put(kind, stored, new)
                    except Raced:
                        continue
                return _deleted(kind, current) if gone else new
        raise status.conflict(kind, name)

    def _turn(self, key: Key) -> asyncio.Lock:
        """Many writers of one object take turns instead of deciding for nothing; the store is what keeps them apart."""
        return self._turns.setdefault(key, asyncio.Lock())

    async def _active(self, namespace: str) -> tuple[Key, int]:
        """The version of a namespace that may get new objects, for the transaction to insist on."""
        key = Key(NAMESPACES, "", namespace)
        found = await self._store.get(key)
        if found is None:
            raise StatusError(
                404, "NotFound", f'namespaces "{namespace}" not found', {"name": namespace, "kind": NAMESPACES}
            )
        if "deletionTimestamp" in decoded(found)["metadata"]:
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
            raise StatusError(403, "Forbidden", message, {"name": namespace, "kind": NAMESPACES, "causes": [cause]})
        return key, found.revision

    async def _write(self, change: Change) -> Object:
        try:
            event = await self._store.write(change)
        except DiskFull as error:
            raise status.insufficient_storage(
                "the disk that holds Modelyard's data is full; free some space and try again"
            ) from error
        return {**change.body, "metadata": {**change.body["metadata"], "resourceVersion": str(event.revision)}}


def decoded(stored: Stored) -> Object:
    """The object of a stored version."""
    body: Object = msgspec.json.decode(stored.body)
    return body


def measure(kind: Kind, body: Object) -> None:
    """Raises StatusError 413 for an object that is too large to be kept, 400 for one that has no JSON form."""
    try:
        size = len(msgspec.json.encode(body))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise status.bad_request(f"the object has no JSON form: {error}") from error
    if size > lifecycle.MAX_OBJECT_BYTES:
        raise status.too_large(
            f"{kind.kind} has {size} bytes, and at most {lifecycle.MAX_OBJECT_BYTES} can be stored; make it smaller"
        )


def _key(kind: Kind, namespace: str | None, name: str) -> Key:
    return Key(kind.resource_name, namespace or "", name)


def _check_preconditions(kind: Kind, current: Object, options: DeleteOptions) -> None:
    metadata = current["metadata"]
    for label, wanted, found in (
        ("UID", options.uid, metadata["uid"]),
        ("ResourceVersion", options.resource_version, metadata["resourceVersion"]),
    ):
        if wanted is not None and wanted != found:
            raise status.conflict(
                kind,
                metadata["name"],
                f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {found}",
            )


def _deleted(kind: Kind, body: Object) -> Object:
    details = {"name": body["metadata"]["name"], "kind": kind.plural, "uid": body["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
