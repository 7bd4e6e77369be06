"""Admission: what was promised never exceeds what the machine has, and who is more important gets room first."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from modelyard.base import quantities
from modelyard.control.drivers import preempt
from modelyard.control.drivers.machine import Machine, together
from modelyard.control.drivers.preempt import Claim

SERVICE_PRIORITY = 1000
"""Of replicas: somebody waits for each answer of a service, while a job's work is only done later. A job's is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """Who wants which share. evict: called with the name of another one for whom it must leave; None: it never must.

    waits: it asks again when there is room, so that others may be asked to leave and free room is kept for it.
    """

    name: str
    share: Machine
    priority: int = 0
    evict: Callable[[str], None] | None = None
    waits: bool = True


@dataclass(slots=True)
class _Holder:
    claim: Claim
    evict: Callable[[str], None] | None
    leaving: bool = False


class Ledger:
    """Who was promised what. A replica keeps its share while it waits to be started again.

    freed: called when there is more room than before.
    """

    def __init__(self, machine: Machine, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._machine = machine
        self._holders: dict[str, _Holder] = {}
        self._waiting: dict[str, Claim] = {}
        self._numbers = itertools.count()

    def admit(self, ask: Ask) -> str:
        """Promise a share; "" if done, else a sentence that names what is asked and what is free.

        Where others of lower priority can make enough room, they are asked to leave: ask again when it is freed.
        """
        if ask.name in self._holders:
            return ""
        claim = Claim(name=ask.name, share=ask.share, priority=ask.priority, since=next(self._numbers))
        staying = [each for each in self._holders.values() if not each.leaving]
        others = [each for each in self._waiting.values() if each.name != ask.name]
        soon = preempt.kept_free(self._free(staying), ask.priority, others)
        free = self._free(list(self._holders.values()))
        if soon.holds(ask.share) and free.holds(ask.share):
            self._waiting.pop(ask.name, None)
            self._holders[ask.name] = _Holder(claim=claim, evict=ask.evict)
            return ""
        comes = soon.holds(ask.share)
        if ask.waits:
            self._waiting.setdefault(ask.name, claim)
            comes = self._make_room(ask, soon, staying) or comes
        told = self._lacking(ask.share, free) or "asks for room that is kept for work of a higher priority"
        if ask.waits and comes:
            return f"{told}; others are ending and make room for it"
        return f"{told}; lower spec.resources, or make room by removing or scaling down another service"

    def leaving(self, name: str) -> None:
        """Its share will be free soon: nobody else needs to leave for it."""
        if name in self._holders:
            self._holders[name].leaving = True

    def release(self, name: str) -> None:
        """It is gone, or waits without its share."""
        waited = self._waiting.pop(name, None) is not None
        if self._holders.pop(name, None) is not None or (waited and self._waiting):
            self._freed()

    def _make_room(self, ask: Ask, soon: Machine, staying: list[_Holder]) -> bool:
        able = {each.claim.name: each for each in staying if each.evict is not None}
        chosen = preempt.victims(ask.share, ask.priority, soon, [each.claim for each in able.values()])
        for each in chosen:
            holder = able[each.name]
            holder.leaving = True
            if holder.evict is not None:
                holder.evict(ask.name)
        return bool(chosen)

    def _free(self, holders: list[_Holder]) -> Machine:
        return self._machine.without(together(each.claim.share for each in holders))

    def _lacking(self, share: Machine, free: Machine) -> str:
        total = self._machine
        lacking = []
        if share.memory_bytes > free.memory_bytes:
            sizes = (share.memory_bytes, free.memory_bytes, total.memory_bytes)
            asked, left, of = (quantities.bytes_text(n) for n in sizes)
            lacking.append(f"{asked} of memory ({left} of {of} are free)")
        if share.cpu_millis > free.cpu_millis:
            left, of = _cores(free.cpu_millis), _cores(total.cpu_millis)
            lacking.append(f"{_cores(share.cpu_millis)} ({left} of {of} are free)")
        if share.gpus > free.gpus:
            lacking.append(f"GPUs: {share.gpus} ({free.gpus} of {total.gpus} are free)")
        return f"asks for {' and '.join(lacking)}" if lacking else ""


def _cores(millis: int) -> str:
    return f"{millis / 1000:g} CPU"
