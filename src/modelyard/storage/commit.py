"""Commits by put-if-absent: one object decides, and whoever is not sure reads back whose it is.

A reply that is lost leaves a client, or its own retry, with "it exists already" for what it has just written itself.
So that answer alone never means that somebody else was faster.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from modelyard.storage.stores import Store

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What is to become visible. beside: objects that the body, or whoever reads it, refers to; put before it, under
    names that no other attempt has. staging: as of `Store.create`."""

    key: str
    body: Any
    staging: str
    beside: Mapping[str, bytes] = field(default_factory=dict)


async def commit(store: Store, item: Item, own: T, winner: Callable[[], Awaitable[T]]) -> T:
    """Put the item unless something has its key. -> `own`, or what `winner` reads back of whoever was faster.

    The loser's objects beside are removed. Raises what stores and `winner` raise; then it is not known who won.
    """
    for key, body in item.beside.items():
        await store.put(key, body)
    won = await store.create(item.key, item.body, staging=item.staging)
    found = own if won else await winner()
    if found != own:
        await store.delete(item.beside)
    return found
