"""One unit: as many replicas as asked for, and what they have used."""

import asyncio
from collections.abc import Callable

from modelyard.control.drivers import rules
from modelyard.control.drivers.processes.replica import Replica
from modelyard.control.drivers.processes.site import Site
from modelyard.control.ir import names
from modelyard.control.ir.observed import ObservedUnit, Usage
from modelyard.control.ir.unit import Unit


class UnitRun:
    """changed: called after every change of what `observed` tells; `gone` tells when there is nothing left of it."""

    def __init__(self, unit: Unit, site: Site, group: asyncio.TaskGroup, changed: Callable[["UnitRun"], None]) -> None:
        self.unit = unit
        self.stopping = False
        self._site = site
        self._group = group
        self._changed = changed
        self._replicas = 0
        self._members: dict[int, Replica] = {}
        self._left = Usage()

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
            members=tuple(member.observed() for member in self.members),
            usage=rules.total((self._left, *(member.usage for member in self._members.values()))),
        )

    def resize(self, replicas: int) -> None:
        """Start what is missing, drain what is too much. A unit that was stopping stays after all."""
        self.stopping = False
        self._change(replicas, hurry=False)

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

    def _change(self, replicas: int, *, hurry: bool) -> None:
        before, self._replicas = self._replicas, replicas
        members = {ordinal: member.leaving for ordinal, member in self._members.items()}
        change = rules.change(members, replicas)
        for ordinal in change.leave:
            self._members[ordinal].leave(hurry=hurry)
        for ordinal in change.add:
            name = names.replica(self.unit.name, ordinal)
            self._members[ordinal] = Replica(name, self.unit, self._site, lambda: self._changed(self))
            self._group.create_task(self._run(ordinal))
        if change.add or change.leave or before != replicas or self.gone:
            # Not otherwise: who asks again for what is already so must not be told to look again.
            self._changed(self)

    async def _run(self, ordinal: int) -> None:
        member = self._members[ordinal]
        try:
            await member.run()
        finally:
            del self._members[ordinal]
            self._left = rules.total((self._left, member.usage))
            self._changed(self)
