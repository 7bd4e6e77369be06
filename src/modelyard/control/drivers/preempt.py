"""Who makes room for work of a higher priority, and whom free room is kept for. Pure.

Source: Kubernetes, "Pod Priority and Preemption": lower priorities first, and nobody in vain.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from modelyard.control.drivers.machine import Machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What somebody holds or waits for. since: a number that grows with each claim."""

    name: str
    share: Machine
    priority: int
    since: int = 0


def victims(asked: Machine, priority: int, free: Machine, holders: Iterable[Claim]) -> tuple[Claim, ...]:
    """Holders that must leave so that the asked share fits beside the rest; none if that cannot be, or need not.

    holders: those that may be asked to leave. Only lower priorities leave: the lowest first, the latest of those first,
    and nobody whose leaving changes nothing.
    """
    if free.holds(asked):
        return ()
    chosen: list[Claim] = []
    lower = [each for each in holders if each.priority < priority]
    for each in sorted(lower, key=lambda each: (each.priority, -each.since)):
        chosen.append(each)
        free = _with(free, each.share)
        if free.holds(asked):
            break
    else:
        return ()
    for each in reversed(chosen[:-1]):
        rest = free.without(each.share)
        if rest.holds(asked):
            chosen.remove(each)
            free = rest
    return tuple(chosen)


def kept_free(free: Machine, priority: int, waiting: Iterable[Claim]) -> Machine:
    """What of the free room somebody of this priority may have: the rest beside what fits of higher ones that wait."""
    higher = [each for each in waiting if each.priority > priority]
    for each in sorted(higher, key=lambda each: (-each.priority, each.since)):
        if free.holds(each.share):
            free = free.without(each.share)
    return free


def _with(free: Machine, share: Machine) -> Machine:
    return free.without(Machine().without(share))
