"""Which partitions a runner should hold. Pure.

Every runner decides for itself from what it sees: how many runners of its revision live, what it holds, what nobody
holds. All holding at most their share leaves nobody's partition unclaimed for long, and a change of the number of
runners moves only what must be moved.
"""

import math
from collections.abc import Set


def share(partitions: int, runners: int) -> int:
    """The most that one of so many runners holds."""
    return math.ceil(partitions / max(runners, 1))


def surplus(held: Set[int], partitions: int, runners: int) -> tuple[int, ...]:
    """What a runner gives back, the highest first."""
    return tuple(sorted(held, reverse=True)[: max(0, len(held) - share(partitions, runners))])


def wanted(held: Set[int], claimed: Set[int], partitions: int, runners: int, start: int) -> tuple[int, ...]:
    """What a runner tries to claim, in this order. claimed: by anybody. start: differs between runners, so that they
    do not all try the same first."""
    room = share(partitions, runners) - len(held)
    turned = [(start + number) % partitions for number in range(partitions)]
    free = [number for number in turned if number not in claimed and number not in held]
    return tuple(free[: max(0, room)])
