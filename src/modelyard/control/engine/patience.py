"""How long writing a status may wait: numbers change all the time, and much is over before anybody has read of it."""

from modelyard.control.ir.values import Key
from modelyard.control.plan.views import Outcome

NUMBERS_SECONDS = 2.0
"""Numbers that change all the time are written to a status as often as that."""
PASSING_SECONDS = 5.0
"""What takes longer is told. Gateways need a second or two to find a new leader: a change of the lead tells nothing."""
_MOMENT = 0.001


class Patience:
    """Of all objects. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._written: dict[Key, float] = {}
        self._passing: dict[Key, float] = {}

    def left(self, key: Key, outcome: Outcome, now: float) -> float:
        """Seconds for which a status that differs from the stored one may wait; 0: it is to be written now."""
        left = 0.0
        if outcome.numbers_only:
            left = self._written.get(key, float("-inf")) + NUMBERS_SECONDS - now
        if outcome.passing:
            left = self._passing.setdefault(key, now) + PASSING_SECONDS - now
        # Seconds since 1970 are not exact: what is due within a moment is due.
        return left if left > _MOMENT else 0.0

    def settled(self, key: Key) -> None:
        """Nothing of it waits any more."""
        self._passing.pop(key, None)

    def wrote(self, key: Key, now: float) -> None:
        """Its status was written."""
        self._written[key] = now
        self._passing.pop(key, None)

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._written.pop(key, None)
        self._passing.pop(key, None)
