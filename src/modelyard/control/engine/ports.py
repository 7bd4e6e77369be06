"""The seams: Driver and Gateway (and `base.clock.Clock`). They speak IR only.

Each has real implementations and a shipped memory twin that passes the same suite in `modelyard.testing`.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from modelyard.control.ir.actions import Action
from modelyard.control.ir.observed import Capabilities, Load, Observed, ObservedRoute
from modelyard.control.ir.platform import KeySource, Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key


class Driver(Protocol):
    """Runs units and tasks somewhere."""

    @property
    def capabilities(self) -> Capabilities: ...

    def observe(self, owner: Key | None = None) -> Observed:
        """What runs now, sorted by name; of one owner, or of all. Never blocks: the driver keeps this up to date."""
        ...

    async def apply(self, action: Action) -> None:
        """Begin an action and return; its effect is seen by `observe`. Idempotent.

        Raises RetryLater when the same action may work later, UserError when it cannot.
        """
        ...

    def hints(self) -> AsyncIterator[Key]:
        """Owners whose observation may have changed: look again. Coalesced; one consumer."""
        ...


class Gateway(Protocol):
    """Brings requests to units."""

    def configure(self, platform: Platform) -> None:
        """Make this what holds for all routes, and return. Before the first call nobody is believed."""
        ...

    async def publish(self, routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        """Make exactly these routes and endpoints the goal and return; `observe` tells what is in force.

        Make before break: a route is switched only after its new unit's endpoints are known everywhere, and a unit's
        endpoints are forgotten only after no route in force names it.
        """
        ...

    def observe(self, owner: Key) -> ObservedRoute:
        """What is in force for an owner's route. Never blocks."""
        ...

    def load(self) -> Mapping[str, Load]:
        """What units have to do, by their names; of those that were called. Never blocks, and is seconds old."""
        ...

    def hints(self) -> AsyncIterator[Key]:
        """Owners whose route was acknowledged or rejected. Coalesced; one consumer."""
        ...


class Keys(Protocol):
    """Fetches the keys of issuers, again and again."""

    def want(self, sources: tuple[KeySource, ...]) -> None:
        """Exactly these from now on."""
        ...

    def known(self) -> dict[str, str]:
        """JSON Web Key Sets by the issuers' names, of those whose keys are known."""
        ...

    def problems(self) -> dict[str, str]:
        """What is wrong with an issuer, by name, in a sentence; those in order are left out."""
        ...
