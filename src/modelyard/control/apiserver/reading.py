"""Lists: pages of one version, selectors, and the forms of an answer."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from modelyard.control.apiserver import requests, selectors, status
from modelyard.control.apiserver.database import Compacted, Page, Range, Unreached
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.requests import Form, ListOptions
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.store import Store
from modelyard.control.apiserver.table import table

Object = dict[str, Any]
Filter = Callable[[bytes], bool]
_CHUNK = 500
"""Objects that are looked at before others get their turn."""


class Found(NamedTuple):
    """Part of a list as it was at `revision`; token: continues it."""

    revision: int
    bodies: list[bytes]
    token: str = ""


def filter_of(kind: Kind, options: ListOptions) -> Filter | None:
    """What the selectors let through, None for everything. Raises StatusError 400."""
    if not options.labels and not options.fields:
        return None
    labels, fields = selectors.labels(options.labels), selectors.fields(options.fields, kind)

    def matches(body: bytes) -> bool:
        found: Object = msgspec.json.decode(body)
        return labels(found["metadata"].get("labels") or {}) and fields(found)

    return matches


async def collect(store: Store, kind: Kind, namespace: str | None, options: ListOptions) -> Found:
    """One page: at most `limit` objects that the selectors let through, all of the first page's version."""
    matches = filter_of(kind, options)
    at = options.revision if options.exact else None
    after: tuple[str, str] | None = None
    if options.resume is not None:
        at, after = options.resume[0], options.resume[1:]
    bodies: list[bytes] = []
    while True:
        wanted = _CHUNK if options.limit is None or matches is not None else min(_CHUNK, options.limit - len(bodies))
        page = await _page(store, Range(kind.resource_name, namespace, after, wanted, at), options)
        at = page.revision
        for index, each in enumerate(page.items, start=1):
            after = (each.key.namespace, each.key.name)
            if matches is None or matches(each.body):
                bodies.append(each.body)
                if len(bodies) == options.limit and (page.more or index < len(page.items)):
                    return Found(at, bodies, requests.continue_token(at, *after))
        if not page.more:
            return Found(at, bodies)


async def _page(store: Store, range_: Range, options: ListOptions) -> Page:
    try:
        page = await store.page(range_)
    except Compacted as error:
        if options.resume is not None:
            raise status.expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            ) from error
        raise too_old(range_.at or 0, error.oldest) from error
    except Unreached as error:
        raise too_new(range_.at or 0, error.newest) from error
    if options.revision is not None and not options.exact and options.revision > page.revision:
        raise too_new(options.revision, page.revision)
    return page


def too_old(revision: int, oldest: int) -> StatusError:
    """410: list again."""
    return status.expired(f"too old resource version: {revision} ({oldest})")


def too_new(revision: int, newest: int) -> StatusError:
    """504: this server never reached that version, for example because its data were replaced."""
    message = f"Too large resource version: {revision}, current: {newest}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version", "field": ""}
    return StatusError(504, "Timeout", message, {"causes": [cause]}, retry_after=1)


async def list_body(kind: Kind, found: Found, form: Form, now: float) -> bytes:
    """The answer to a list: a List of the kind, or a Table. Others get their turn while a long table is made."""
    metadata: Object = {"resourceVersion": str(found.revision)}
    if found.token:
        metadata["continue"] = found.token
    if form.table:
        whole = _table(kind, (), form, now, metadata)
        for part in chunks(found.bodies):
            whole["rows"] += _table(kind, part, form, now, metadata, with_columns=False)["rows"]
            await asyncio.sleep(0)
        return msgspec.json.encode(whole)
    head = msgspec.json.encode({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata})
    return head[:-1] + b',"items":[' + b",".join(found.bodies) + b"]}"


def table_body(
    kind: Kind, bodies: Sequence[bytes], form: Form, now: float, metadata: Object, *, with_columns: bool = True
) -> bytes:
    """A few objects as a meta.k8s.io/v1 Table."""
    return msgspec.json.encode(_table(kind, bodies, form, now, metadata, with_columns=with_columns))


def chunks(bodies: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Parts that are small enough to be worked on without a pause."""
    return (bodies[start : start + _CHUNK] for start in range(0, len(bodies), _CHUNK))


def _table(
    kind: Kind, bodies: Sequence[bytes], form: Form, now: float, metadata: Object, *, with_columns: bool = True
) -> Object:
    objects = [msgspec.json.decode(each) for each in bodies]
    return table(kind, objects, include_object=form.include, now=now, list_metadata=metadata, with_columns=with_columns)
