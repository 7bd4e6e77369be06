"""Which routes may have the public ids that they ask for: pure, and the same for every gateway."""

from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key


def contested(routes: tuple[Route, ...]) -> dict[Key, str]:
    """Owners whose route cannot be in force beside the earlier ones, and why: each id belongs to one route."""
    holders: dict[str, Key] = {}
    refused: dict[Key, str] = {}
    for route in routes:
        taken = next((each for each in route.ids if holders.get(each, route.owner) != route.owner), None)
        if taken is None:
            holders.update(dict.fromkeys(route.ids, route.owner))
        else:
            refused[route.owner] = f"the public id {taken!r} belongs to {holders[taken]}: rename one of the two"
    return refused
