"""What holds while a route cannot come into force that admits fewer callers: pure, and the same for every gateway."""

from msgspec.structs import replace

from modelyard.control.ir.access import Access
from modelyard.control.ir.admission import narrows
from modelyard.control.ir.route import Route

CLOSED = "until that is mended nobody may call"
"""What is said of a route that nobody may call since a newer one was refused."""


def shuts_out(old: Route | None, new: Route | None) -> bool:
    """Whether somebody who may call the old one may not call the new one. None: there is no route."""
    if old is None or old == new:
        return False
    return new is None or (new.internal and not old.internal) or narrows(old.access, new.access)


def meanwhile(in_force: Route | None, goal: Route, *, refused: bool) -> tuple[Route, ...]:
    """What may hold instead of a goal, the best first; none of it admits anybody whom the goal would not admit.

    refused: by the gateway, and not only that it has to wait; then its callers may be the reason.
    """
    if in_force is None:
        return ()
    if not shuts_out(in_force, goal):
        return (in_force,)
    narrowed, closed = narrowing(in_force, goal), replace(in_force, access=Access())
    return (closed,) if refused else (narrowed, closed)


def narrowing(in_force: Route, goal: Route) -> Route:
    """The route in force, for the callers of another one."""
    return replace(in_force, access=goal.access, internal=in_force.internal or goal.internal)


def is_closed(told: Route | None, goal: Route | None) -> bool:
    """Whether nobody may call a route whose goal says otherwise."""
    return told is not None and goal is not None and told.access == Access() != goal.access
