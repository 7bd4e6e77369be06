"""Which routes may have the public ids that they ask for: pure, and the same for every gateway."""

from collections.abc import Collection, Iterable, Mapping

from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key


def contested(routes: Iterable[Route], incumbents: Collection[Key]) -> dict[Key, str]:
    """Owners whose route cannot be in force, and why: each id belongs to one route, and who has it keeps it.

    Of several newcomers it is the first by name.
    """
    holders: dict[str, Key] = {}
    refused: dict[Key, str] = {}
    for route in sorted(routes, key=lambda each: (each.owner not in incumbents, each.owner)):
        taken = next((each for each in route.ids if holders.get(each, route.owner) != route.owner), None)
        if taken is None:
            holders.update(dict.fromkeys(route.ids, route.owner))
        else:
            refused[route.owner] = f"the public id {taken!r} belongs to {holders[taken]}: rename one of the two"
    return refused


class Claims:
    """Who asks for which public id: routes that share none with another one need not be looked at."""

    def __init__(self) -> None:
        self._by_id: dict[str, set[Key]] = {}
        self._shared: dict[str, None] = {}

    def replace(self, owner: Key, former: tuple[str, ...], ids: tuple[str, ...]) -> None:
        """An owner asks for these ids instead of the former ones."""
        if former == ids:
            return
        for each in former:
            claimants = self._by_id[each]
            claimants.discard(owner)
            if len(claimants) < 2:
                self._shared.pop(each, None)
            if not claimants:
                del self._by_id[each]
        for each in ids:
            claimants = self._by_id.setdefault(each, set())
            claimants.add(owner)
            if len(claimants) > 1:
                self._shared[each] = None

    def has(self, public_id: str) -> bool:
        """Whether somebody asks for an id."""
        return public_id in self._by_id

    def contested(self, routes: Mapping[Key, Route], incumbents: Collection[Key]) -> dict[Key, str]:
        """See `contested`, of all routes."""
        concerned = {owner for each in self._shared for owner in self._by_id[each]}
        return contested((routes[owner] for owner in concerned), incumbents)
