"""A task whose members are started again until the work is done, one has a final failure, or it is forgotten."""

import asyncio
from collections.abc import Callable

from modelyard.control.drivers import rules
from modelyard.control.drivers.processes.attention import Attention
from modelyard.control.drivers.processes.member import Member
from modelyard.control.drivers.processes.party import Party
from modelyard.control.drivers.processes.reports import LOOK_SECONDS
from modelyard.control.drivers.processes.site import Site
from modelyard.control.drivers.processes.task import TaskRun
from modelyard.control.ir import names
from modelyard.control.ir.task import Task
from modelyard.wire.report import Report


class CrewRun(TaskRun):
    """A gang is one party of all its members; otherwise each member is a party of its own."""

    def __init__(self, task: Task, site: Site, changed: Callable[[TaskRun], None]) -> None:
        super().__init__(task, site, changed)
        self._parallelism = task.parallelism
        self._parties: dict[int, Party] = {}
        self._names: set[str] = set()
        self._attention = Attention()
        self._group: asyncio.TaskGroup | None = None
        self._concluded = False

    @property
    def parallelism(self) -> int:
        return self._parallelism

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(member for index in sorted(self._parties) for member in self._parties[index].members)

    @property
    def logs(self) -> tuple[str, ...]:
        return tuple(self._names)

    def adjust(self, parallelism: int) -> None:
        """Start what is missing, end what is too much, from the highest index. Nothing, once it is ending."""
        before, self._parallelism = self._parallelism, parallelism
        if before != parallelism and self._group is not None and not self._over:
            self._change(self._group)
            self._changed()

    def look_again(self) -> None:
        """As of each party."""
        for party in self._parties.values():
            party.look_again()

    @property
    def _over(self) -> bool:
        return self._concluded or self.forgotten

    @property
    def _gone(self) -> bool:
        return self._over and all(party.over for party in self._parties.values())

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._over:
                return
            self._group = group
            if self.task.gang:
                self._add(group, 0, tuple(range(self._parallelism)), self.task.name)
            else:
                self._change(group)
            await self._watch()

    async def _watch(self) -> None:
        """Look at reports, and at the time, until nothing runs any more."""
        clock = self._site.clock
        seconds = self.task.deadline_seconds
        deadline = clock.monotonic() + seconds if seconds else None
        while not self._gone:
            left = None if deadline is None or self._over else max(deadline - clock.monotonic(), 0)
            if self._works:
                await self._attention.until(lambda: self._gone, min(LOOK_SECONDS, left or LOOK_SECONDS))
            else:
                await self._attention.until(lambda: self._gone or self._works, left)
            if any([member.look() for member in self.members]):  # noqa: C419  all of them
                self._changed()
            if deadline is not None and clock.monotonic() >= deadline:
                self._conclude(None, f"took longer than {seconds:g} s and was ended")

    @property
    def _works(self) -> bool:
        return any(member.process for member in self.members)

    def _change(self, group: asyncio.TaskGroup) -> None:
        change = rules.change({index: party.leaving for index, party in self._parties.items()}, self._parallelism)
        for index in change.leave:
            self._parties[index].leave(self.task.grace_seconds)
        for index in change.add:
            self._add(group, index, (index,), names.member(self.task.name, index))

    def _add(self, group: asyncio.TaskGroup, number: int, indices: tuple[int, ...], name: str) -> None:
        task = self.task
        members = tuple(
            Member(names.member(task.name, index), index, task, self._site, self._member_changed) for index in indices
        )
        self._names.update(member.name for member in members)
        party = Party(name, members, task, self._site, concluded=self._conclude, failed=self._failed)
        self._parties[number] = party
        group.create_task(self._run(number, party))

    async def _run(self, number: int, party: Party) -> None:
        try:
            await party.run()
        finally:
            if not all(member.done for member in party.members):
                del self._parties[number]
                self._ended_usage = rules.total((self._ended_usage, *(member.usage for member in party.members)))
            self._member_changed()

    def _failed(self) -> None:
        self._failures += 1
        self._changed()

    def _conclude(self, report: Report | None, message: str = "") -> None:
        """How the task ends; the first one counts."""
        if not self._concluded:
            self._concluded, self._report, self._message = True, report, message
            self._leave(self.task.grace_seconds)

    def _leave(self, grace_seconds: float) -> None:
        for party in self._parties.values():
            party.leave(grace_seconds)
        self._attention.wake()

    def _member_changed(self) -> None:
        self._attention.wake()
        self._changed()
