"""What the API server did not even store: told like any other trouble, and tried again after a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelyard.base.clock import Clock
from modelyard.control.drivers.kube import trouble as troubles
from modelyard.control.ir.actions import Run, Start
from modelyard.control.ir.names import kube
from modelyard.control.ir.observed import Observed, ObservedReplica, ObservedTask, ObservedUnit, ReplicaState
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import ApiError
from modelyard.wire.report import failure

_AGAIN_SECONDS = 60.0
_FINAL = frozenset({400, 403, 422})


class Refused:
    """changed: told the owner when it is time to try again, or that there is news."""

    def __init__(self, changed: Callable[[Key], None], clock: Clock) -> None:
        self._changed = changed
        self._clock = clock
        self._units: dict[str, tuple[float, ObservedUnit]] = {}
        self._tasks: dict[str, tuple[float, ObservedTask]] = {}

    @contextmanager
    def instead_of(self, action: Start | Run) -> Iterator[None]:
        """Around writes: a refusal that repeating at once does not heal becomes an observation."""
        try:
            yield
        except ApiError as error:
            if error.status not in _FINAL:
                raise
            self._note(action, error.message)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(5.0)
            now = self._clock.monotonic()
            for name, (due, unit) in tuple(self._units.items()):
                if now >= due:
                    del self._units[name]
                    self._changed(unit.unit.owner)

    def forget(self, name: str, owner: Key) -> None:
        """Nobody wants it any more."""
        if self._units.pop(name, None) or self._tasks.pop(name, None):
            self._changed(owner)

    def add_to(self, observed: Observed, owner: Key | None) -> Observed:
        """With what was refused."""
        units = [each for _, each in self._units.values() if owner in (None, each.unit.owner)]
        tasks = [each for _, each in self._tasks.values() if owner in (None, each.owner)]
        if not units and not tasks:
            return observed
        return Observed(
            units=tuple(sorted((*observed.units, *units), key=lambda each: each.unit.name)),
            tasks=tuple(sorted((*observed.tasks, *tasks), key=lambda each: each.name)),
        )

    def _note(self, action: Start | Run, message: str) -> None:
        now, due = self._clock.now(), self._clock.monotonic() + _AGAIN_SECONDS
        trouble = troubles.refusal(message, now)
        if isinstance(action, Start):
            unit = action.unit
            member = ObservedReplica(name=f"{kube(unit.name)[1]}-missing", state=ReplicaState.PENDING, trouble=trouble)
            observed = ObservedUnit(unit=unit, replicas=action.replicas, begun=action.begun, members=(member,))
            self._units[unit.name] = (due, observed)
            self._changed(unit.owner)
            return
        task = action.task
        report = failure(trouble.reason, trouble.message, retry=not task.restart)
        ended = ObservedTask(
            name=task.name,
            owner=task.owner,
            attempt=task.attempt,
            parallelism=task.parallelism,
            started_at=now,
            finished_at=now,
            report=report,
        )
        self._tasks[task.name] = (due, ended)
        self._changed(task.owner)
