"""Which routes may have the public ids that they ask for: pure, and the same for every gateway."""

from collections.abc import Collection

from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key


def contested(routes: tuple[Route, ...], incumbents: Collection[Key]) -> dict[Key, str]:
    """Owners whose route cannot be in force, and why: each id belongs to one route, and who has it keeps it."""
    holders: dict[str, Key] = {}
    refused: dict[Key, str] = {}
    for route in sorted(routes, key=lambda each: each.owner not in incumbents):
        taken = next((each for each in route.ids if holders.get(each, route.owner) != route.owner), None)
        if taken is None:
            holders.update(dict.fromkeys(route.ids, route.owner))
        else:
            refused[route.owner] = f"the public id {taken!r} belongs to {holders[taken]}: rename one of the two"
    return refused
