"""Which routes may have the public ids that they ask for: pure, and the same for every gateway.

Two ids whose hashes are equal are one to Envoy, which then refuses both: they are as good as the same id.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from modelyard.control.gateway.scope_key import hashed
from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key
from modelyard.control.render import xds


class _Holder(NamedTuple):
    """Who has a public id. owner: None is the gateway."""

    name: str
    owner: Key | None


_RESERVED = {hashed(each): _Holder(each, None) for each in (*xds.SERVER_SCOPES, xds.KEYS)}
"""What the gateway itself answers. A model may be called so, but not by another name of the same hash."""


def contested(routes: Iterable[Route], incumbents: Collection[Key]) -> dict[Key, str]:
    """Owners whose route cannot be in force, and why: each id belongs to one route, and who has it keeps it.

    Of several newcomers it is the first by name.
    """
    holders: dict[int, _Holder] = {}
    refused: dict[Key, str] = {}
    for route in sorted(routes, key=lambda each: (each.owner not in incumbents, each.owner)):
        wanted: dict[int, _Holder] = {}
        for each in route.ids:
            place = hashed(each)
            holder = holders.get(place) or wanted.get(place) or _RESERVED.get(place)
            if holder is not None and (holder.name != each or holder.owner not in (None, route.owner)):
                refused[route.owner] = _why(each, holder)
                break
            wanted[place] = _Holder(each, route.owner)
        else:
            holders |= wanted
    return refused


def _why(public_id: str, holder: _Holder) -> str:
    if public_id == holder.name:
        return f"the public id {public_id!r} belongs to {holder.owner}: rename one of the two"
    return (
        f"the public id {public_id!r} has the same hash as {holder.name!r}, which belongs to "
        f"{holder.owner or 'the gateway itself'}, and Envoy would take one for the other: give this one another name"
    )


class Claims:
    """Who asks for which public id: routes that share none with another one need not be looked at."""

    def __init__(self) -> None:
        self._by_place: dict[int, tuple[tuple[Key, str], ...]] = {}
        self._shared: dict[int, None] = {}

    def replace(self, owner: Key, former: tuple[str, ...], ids: tuple[str, ...]) -> None:
        """An owner asks for these ids instead of the former ones."""
        if former == ids:
            return
        for each in former:
            place = hashed(each)
            self._set(place, tuple(claim for claim in self._by_place[place] if claim != (owner, each)))
        for each in ids:
            place = hashed(each)
            self._set(place, (*self._by_place.get(place, ()), (owner, each)))

    def has(self, public_id: str) -> bool:
        """Whether somebody asks for an id."""
        return any(each == public_id for _, each in self._by_place.get(hashed(public_id), ()))

    def contested(self, routes: Mapping[Key, Route], incumbents: Collection[Key]) -> dict[Key, str]:
        """See `contested`, of all routes."""
        concerned = {owner for place in self._shared for owner, _ in self._by_place[place]}
        return contested((routes[owner] for owner in concerned), incumbents)

    def _set(self, place: int, claims: tuple[tuple[Key, str], ...]) -> None:
        if claims:
            self._by_place[place] = claims
        else:
            del self._by_place[place]
        if len(claims) > 1 or (claims and place in _RESERVED):
            self._shared[place] = None
        else:
            self._shared.pop(place, None)
