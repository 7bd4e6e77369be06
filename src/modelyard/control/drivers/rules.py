"""What every driver decides in the same way: names, which replicas come and go, back-off, refusals. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from modelyard.base.errors import RetryLater, UserError
from modelyard.control.ir.actions import Adjust, Resize, Run, Start
from modelyard.control.ir.observed import Usage
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key
from modelyard.wire.report import Report
from modelyard.wire.work import WorkSpec

MOST_REPLICAS = 1000
MOST_MEMBERS = 1000
_TASKS = ("prepare", "score", "run", "clean")
"""Parts of a WorkSpec that come to an end."""
_ONCE = frozenset({"prepare", "clean"})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LONGEST_NAME = 200
_QUICK_PAUSE = 0.1
_LONGEST_PAUSE = 60.0
_HEALTHY_SECONDS = 60.0


@dataclass(slots=True)
class Backoff:
    """Pauses before a replica or member is started again: 1, 2, 4 ... 60 seconds.

    The first end of one that was ready is an accident and costs 0.1 s; 60 s of being ready make up for the past.
    """

    failures: int = 0
    progress: tuple[int, ...] = ()

    def pause(self, ready_seconds: float | None) -> float:
        """Seconds to wait after an end. ready_seconds: how long it had been ready; None: it never was."""
        if ready_seconds is not None and ready_seconds >= _HEALTHY_SECONDS:
            self.failures = 0
        self.failures += 1
        if ready_seconds is not None and self.failures == 1:
            return _QUICK_PAUSE
        return float(min(2 ** min(self.failures - 1, 10), _LONGEST_PAUSE))

    def pause_after(self, seconds: float, progress: tuple[int, ...] = ()) -> float:
        """The same for a member of a task, which is never ready.

        One that ran for 60 s starts afresh, and so does one during whose life its job advanced.
        """
        advanced = progress > self.progress
        self.progress = max(self.progress, progress)
        return self.pause(_HEALTHY_SECONDS if advanced or seconds >= _HEALTHY_SECONDS else None)


@dataclass(frozen=True, slots=True)
class Change:
    """Ordinals of replicas that come, and of those that leave, highest first."""

    add: tuple[int, ...] = ()
    leave: tuple[int, ...] = ()


def change(members: Mapping[int, bool], replicas: int) -> Change:
    """From what there is to so many. members: ordinal -> whether it is leaving already.

    An ordinal is free again only when its replica has ended, so numbers may have gaps for a while.
    """
    staying = sorted(ordinal for ordinal, leaving in members.items() if not leaving)
    surplus = len(staying) - replicas
    if surplus >= 0:
        return Change(leave=tuple(reversed(staying[replicas:])))
    free = (ordinal for ordinal in range(len(members) - surplus) if ordinal not in members)
    return Change(add=tuple(ordinal for ordinal, _ in zip(free, range(-surplus), strict=False)))


def told(work: WorkSpec, begun: tuple[int, ...]) -> WorkSpec:
    """What a process that starts now must do: the recorded work, of a stream with the partitions that have begun."""
    if work.stream is None:
        return work
    return msgspec.structs.replace(work, stream=msgspec.structs.replace(work.stream, begun=begun))


def says_why(report: Report | None) -> bool:
    """Whether a process that is not ready says itself what it waits for, so that ending it would help nobody."""
    return report is not None and report.stream is not None and report.stream.problem is not None


def compares(report: Report) -> bool:
    """Whether a process that serves tells what came of copies of requests."""
    return report.serve is not None and report.serve.shadow is not None


def check_start(action: Start, present: Unit | None, *, stopping: bool) -> None:
    """Refuse what cannot be a unit of a driver, and a second unit under a name that is taken."""
    unit = action.unit
    check_name(unit.name, "unit")
    check_replicas(unit.name, action.replicas)
    if unit.work.serve is None and unit.work.stream is None:
        raise UserError(
            f"unit {unit.name}: its work must set serve or stream; apply the object again to record a new revision"
        )
    if present is None or present == unit:
        return
    if stopping:
        raise RetryLater(f"unit {unit.name}: one of the same name and another content is still ending")
    raise UserError(f"unit {unit.name} runs already with another content: a new content needs a new revision")


def check_resize(action: Resize, present: Unit | None) -> None:
    """Refuse the number, another owner, and a unit that is not there: it ended, so the caller must look again."""
    check_replicas(action.unit, action.replicas)
    if present is None:
        raise RetryLater(f"unit {action.unit} does not run: look again and start it")
    check_owner(f"unit {action.unit}", present.owner, action.owner)


def check_run(action: Run) -> None:
    """Refuse what cannot be a task of a driver."""
    task = action.task
    check_name(task.name, "task")
    part = next((each for each in _TASKS if getattr(task.work, each) is not None), None)
    if part is None:
        raise UserError(f"task {task.name}: its work must set one of {', '.join(_TASKS)}")
    check_parallelism(task.name, task.parallelism)
    if task.restart and part in _ONCE:
        raise UserError(f"task {task.name}: restart needs work that sets score or run; a {part} task runs once")
    if not task.restart and (task.parallelism != 1 or task.gang):
        raise UserError(f"task {task.name}: a task without restart has one member and is no gang")
    if task.gang and (task.work.run is None or task.parallelism < 1):
        raise UserError(f"task {task.name}: gang needs work that sets run, and at least one member")


def check_adjust(action: Adjust, present: Task | None, *, forgotten: bool) -> None:
    """Refuse the number, another owner, a task with a fixed number, and one that is not there: look again."""
    check_parallelism(action.task, action.parallelism)
    if present is None or forgotten:
        raise RetryLater(f"task {action.task} does not run: look again and run it")
    check_owner(f"task {action.task}", present.owner, action.owner)
    if not present.restart or present.gang:
        raise UserError(f"task {action.task}: the number of members of a gang, or of a task that runs once, is fixed")


def check_parallelism(name: str, parallelism: int) -> None:
    """Refuse a number that nobody can mean."""
    if not 0 <= parallelism <= MOST_MEMBERS:
        raise UserError(f"task {name}: parallelism must be 0 to {MOST_MEMBERS}, not {parallelism}")


def total(usages: Iterable[Usage]) -> Usage:
    """The sum."""
    each = tuple(usages)
    return Usage(
        cpu_seconds=sum(one.cpu_seconds for one in each),
        memory_byte_seconds=sum(one.memory_byte_seconds for one in each),
        gpu_seconds=sum(one.gpu_seconds for one in each),
    )


def check_owner(what: str, owner: Key, claimed: Key) -> None:
    """Names are unique over all owners; another owner is a defect that must not end somebody else's processes."""
    if owner != claimed:
        raise UserError(f"{what} belongs to {owner}, not to {claimed}")


def check_name(name: str, what: str) -> None:
    """Names become file names."""
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise UserError(
            f"{what} {name[:_LONGEST_NAME]!r}: the name must be at most {_LONGEST_NAME} lower-case letters, digits, "
            "'-' and '.', as Modelyard derives it"
        )


def check_replicas(name: str, replicas: int) -> None:
    """Refuse a number that nobody can mean."""
    if not 0 <= replicas <= MOST_REPLICAS:
        raise UserError(f"unit {name}: replicas must be 0 to {MOST_REPLICAS}, not {replicas}")
