"""One unit: as many replicas as asked for, what they report, and what they have used."""

import asyncio
from collections.abc import Callable

from modelyard.control.drivers import rules
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.replica import Replica
from modelyard.control.drivers.processes.reports import LOOK_SECONDS
from modelyard.control.drivers.processes.site import Site
from modelyard.control.ir import names
from modelyard.control.ir.observed import ObservedUnit, Usage
from modelyard.control.ir.unit import Unit
from modelyard.wire.work import WorkSpec

_SERVE_LOOK_SECONDS = 2.0
"""They have news only while copies of requests are compared, and no more often."""


class UnitRun:
    """changed: called after every change of what `observed` tells; `gone` tells when there is nothing left of it."""

    def __init__(self, unit: Unit, site: Site, group: asyncio.TaskGroup, changed: Callable[["UnitRun"], None]) -> None:
        self.unit = unit
        self.stopping = False
        self._site = site
        self._group = group
        self._told = changed
        self._replicas = 0
        self._begun: tuple[int, ...] = ()
        self._members: dict[int, Replica] = {}
        self._left = Usage()
        self._attention = Attention()
        self._look_seconds = LOOK_SECONDS if unit.work.stream is not None else _SERVE_LOOK_SECONDS
        group.create_task(self._watch())

    @property
    def gone(self) -> bool:
        return self.stopping and not self._members

    @property
    def members(self) -> tuple[Replica, ...]:
        return tuple(self._members[ordinal] for ordinal in sorted(self._members))

    def observed(self) -> ObservedUnit:
        """What is known now."""
        return ObservedUnit(
            unit=self.unit,
            replicas=self._replicas,
            begun=self._begun,
            members=tuple(member.observed() for member in self.members),
            usage=rules.total((self._left, *(member.usage for member in self._members.values()))),
        )

    def resize(self, replicas: int, begun: tuple[int, ...] = ()) -> None:
        """Start what is missing, drain what is too much. A unit that was stopping stays after all.

        begun: for processes that start from now on.
        """
        self.stopping = False
        news, self._begun = begun != self._begun, begun
        self._change(replicas, hurry=False, news=news)

    def stop(self, *, hurry: bool = False) -> None:
        """Drain everything; it is `gone` in the end. hurry: as in `Replica.leave`."""
        self.stopping = True
        self._change(0, hurry=hurry)
        if hurry:
            for member in self._members.values():
                member.leave(hurry=True)

    def look_again(self) -> None:
        """Something came that replicas may be waiting for."""
        for member in self._members.values():
            member.look_again()

    def _change(self, replicas: int, *, hurry: bool, news: bool = False) -> None:
        before, self._replicas = self._replicas, replicas
        members = {ordinal: member.leaving for ordinal, member in self._members.items()}
        change = rules.change(members, replicas)
        for ordinal in change.leave:
            self._members[ordinal].leave(hurry=hurry)
        for ordinal in change.add:
            name = names.replica(self.unit.name, ordinal)
            self._members[ordinal] = Replica(name, self.unit, self._site, changed=self._changed, work=self._work)
            self._group.create_task(self._run(ordinal))
        if news or change.add or change.leave or before != replicas or self.gone:
            # Not otherwise: who asks again for what is already so must not be told to look again.
            self._changed()

    async def _run(self, ordinal: int) -> None:
        member = self._members[ordinal]
        try:
            await member.run()
        finally:
            del self._members[ordinal]
            self._left = rules.total((self._left, member.usage))
            self._changed()

    async def _watch(self) -> None:
        """Look at the reports of all replicas at once: however many have news, their owner is told once in a while."""
        while not self.gone:
            if self._works:
                await self._attention.until(lambda: self.gone, self._look_seconds)
            else:
                await self._attention.until(lambda: self.gone or self._works)
            if any([member.look() for member in self.members]):  # noqa: C419  all of them
                self._changed()

    @property
    def _works(self) -> bool:
        return any(member.process for member in self._members.values())

    def _work(self) -> WorkSpec:
        return rules.told(self.unit.work, self._begun)

    def _changed(self) -> None:
        self._attention.wake()
        self._told(self)
