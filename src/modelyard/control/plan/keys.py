"""When the keys of an issuer are fetched, and how long they count: decisions only, of one issuer each.

Times are seconds of a clock that never goes back, unless they are called wall.
"""

from dataclasses import dataclass, replace

USUAL_SECONDS = 300.0
SHORTEST_SECONDS, LONGEST_SECONDS = 60.0, 900.0
"""Bounds of what an issuer may ask for with Cache-Control."""
HINTED_SECONDS = 5.0
"""Between two fetches because of a token that names an unknown key."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
OUTAGE_SECONDS = 7 * 24 * 3600.0
"""How long keys count that their issuer could not confirm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known of an issuer's keys.

    keys: a key set, "" while none is known or it is too old. ends: when it is. due: when they are fetched next.
    tried: when they were last. failures: in a row. problem: why the last fetch failed, "" when it did not.
    """

    keys: str = ""
    ends: float = float("inf")
    due: float = 0.0
    tried: float = float("-inf")
    failures: int = 0
    problem: str = ""


def remembered(keys: str, age: float, now: float) -> Known:
    """From the disk; age: seconds since they were fetched. They are fetched anew at once."""
    rest = OUTAGE_SECONDS - max(0.0, age)
    return Known(keys=keys, ends=now + rest, due=now) if rest > 0 else Known(due=now)


def begun(known: Known, now: float) -> Known:
    """A fetch begins."""
    return replace(known, tried=now)


def fetched(known: Known, keys: str, lifetime: float | None, now: float) -> Known:
    """It brought keys. lifetime: seconds for which the issuer allows to keep them, None where it does not say."""
    wanted = USUAL_SECONDS if lifetime is None else lifetime
    due = now + min(max(wanted, SHORTEST_SECONDS), LONGEST_SECONDS)
    return replace(known, keys=keys, ends=now + OUTAGE_SECONDS, due=due, failures=0, problem="")


def failed(known: Known, why: str, now: float, spread: float) -> Known:
    """It failed: once more after a pause that doubles. spread: of the pause, 0.5 to 1.5, so that peers do not meet."""
    pause = min(FIRST_PAUSE_SECONDS * 2 ** min(known.failures, 16), LONGEST_PAUSE_SECONDS) * spread
    return replace(known, due=now + pause, failures=known.failures + 1, problem=why)


def hinted(known: Known, now: float) -> Known:
    """A token named a key that is not known: fetch soon, but not for each such token."""
    return replace(known, due=min(known.due, max(now, known.tried + HINTED_SECONDS)))


def aged(known: Known, now: float) -> Known:
    """Keys that nobody confirmed for too long count no more."""
    return replace(known, keys="", ends=float("inf")) if known.ends <= now else known
