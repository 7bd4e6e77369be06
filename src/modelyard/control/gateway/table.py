"""What there is for clients of the delta discovery service, by type and name. No IO."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from modelyard.base import ids


class Resource(NamedTuple):
    """A message on the wire. version: of its content, so that a client that comes back gets only what differs."""

    version: str
    body: bytes


class Order(NamedTuple):
    """Types whose order counts for a client that serves callers while it is brought up to date.

    doors: without one of these nobody is served. ground: what there is, and what a client asks for under its names
    when it has got it. above: what names the ground; within: what only a client with doors asks for.
    """

    doors: str
    ground: tuple[str, str]
    above: str
    within: Collection[str]


class Table:
    """Resources by type and name. Types are sent in their order: what is named goes before who names it.

    renewed: gives a body of a type other bytes of the same meaning, where a client needs that. apart: types of which
    each resource is always sent alone. is_whole: what is not here is not wanted; before, a client that comes with more
    keeps it: an earlier control plane told it that, and this one is still finding out what is wanted; is_wanted: what
    is known by then about names of the type above. has_doors: until then a client that has none gets none. place: of a
    type and a name; a client takes only one resource at a place, and the table has no more at a time.
    """

    def __init__(
        self,
        types: tuple[str, ...],
        renewed: Callable[[str, bytes, int], bytes],
        apart: Collection[str] = (),
        order: Order | None = None,
        place: Callable[[str, str], object] | None = None,
    ) -> None:
        self.place = place or _own_place
        self.by_type: dict[str, dict[str, Resource]] = {each: {} for each in types}
        self.is_whole = True
        self.has_doors = True
        self.is_wanted: Callable[[str], bool] = _unknown
        self.apart = apart
        self.order = order
        self.renewed = renewed
        self._removed: set[tuple[str, str]] = set()

    def put(self, kind: str, name: str, body: bytes) -> bool:
        """Whether that changed anything."""
        before = self.by_type[kind].get(name)
        if before is not None and before.body == body:
            return False
        self._removed.discard((kind, name))
        self.by_type[kind][name] = Resource(ids.short_hash(body, 16), body)
        return True

    def remove(self, kind: str, name: str) -> bool:
        """Whether that changed anything."""
        if not self.is_whole:
            self._removed.add((kind, name))
        return self.by_type[kind].pop(name, None) is not None

    def lacks(self, kind: str, name: str) -> bool:
        """Whether it is known that there is to be nothing under a name."""
        if name in self.by_type[kind]:
            return False
        is_above = self.order is not None and kind == self.order.above
        return self.is_whole or (kind, name) in self._removed or (is_above and not self.is_wanted(name))


def _unknown(name: str) -> bool:  # noqa: ARG001
    """What may be wanted yet."""
    return True


def _own_place(kind: str, name: str) -> object:  # noqa: ARG001
    """Names that are not equal do not collide."""
    return name
