"""What the suites for drivers need: a rig, things to run, and questions about them.

Units and tasks say by the variable LEVER what their processes do, in words separated by spaces:
`exit=3` (ends at once), `failure=LoadFailed` (reports that), `hang` (never gets ready), `drain=0.5` (so many seconds of
requests in flight at SIGTERM), `copies` (tells after 0.2 seconds what came of copies of requests), `stubborn` (ignores
SIGTERM), `take=0.3` (a task's work), `silent` (a task without a report). Without one a server gets ready and a task
reports what it found.

Members of a job work until SIGTERM, or say `done=0.2` (the work is done after so many seconds), `fatal=InputInvalid`
(it cannot be done), `retry=StoreUnreachable` (not for now), `once=word` (the first one to see the word ends with exit
status 3), `progress` (a report on the way), `silent` (ends well without a word). `2:exit=3` is said to member 2 alone.

Runners of a stream get ready and work until SIGTERM, or say `waits` (they report and are not ready), `away` (and say
what they wait for), `progress` (a further report after 0.2 seconds), `later=RecordFailed` (they are ready, and report
that after 0.2 seconds).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from modelyard.base.clock import Clock
from modelyard.control.drivers.machine import Machine
from modelyard.control.engine.ports import Driver
from modelyard.control.ir.actions import Action
from modelyard.control.ir.observed import (
    MemberState,
    ObservedMember,
    ObservedReplica,
    ObservedTask,
    ObservedUnit,
    ReplicaState,
)
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import SecretKey, Unit, Variable
from modelyard.control.ir.values import Key
from modelyard.wire.report import StreamReport
from modelyard.wire.work import (
    CleanWork,
    InputWork,
    ModelWork,
    OutputWork,
    PrepareWork,
    RunWork,
    ScoreWork,
    ServeWork,
    SinkWork,
    SourceWork,
    StreamWork,
    WorkSpec,
)

IRIS = Key(kind="ModelService", namespace="default", name="iris")
ROSE = Key(kind="ModelService", namespace="default", name="rose")
MODEL = Key(kind="Model", namespace="default", name="iris")
STREAM = Key(kind="ModelStream", namespace="default", name="fraud")
JOB = Key(kind="ModelJob", namespace="default", name="score")
GIB = 2**30
MACHINE = Machine(memory_bytes=8 * GIB, cpu_millis=4000)
"""What a rig's driver may promise."""
SECRET = SecretKey(secret="store", key="token")  # noqa: S106  the name of one
_PATIENCE_SECONDS = 60.0


class Rig(Protocol):
    """A driver on MACHINE whose processes obey LEVER, and the world around it. clock: the driver's."""

    @property
    def driver(self) -> Driver: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def secrets(self) -> dict[SecretKey, str]: ...

    async def step(self) -> None:
        """Let some milliseconds pass."""
        ...

    @property
    def secret_files(self) -> dict[str, dict[str, bytes]]:
        """Name of a Secret -> its keys, for credentials."""
        ...

    def kill(self, process: ObservedReplica | ObservedMember) -> None:
        """`kill -9` of the process of a replica or member."""
        ...

    def work(self, process: ObservedReplica) -> WorkSpec:
        """What the process of a replica was told to do."""
        ...

    def look_again(self) -> None:
        """Tell the driver that a Secret changed."""
        ...


def unit(name: str = "iris-svc-00001.default", owner: Key = IRIS, *, lever: str = "", **changes: Any) -> Unit:
    """A unit that serves one model."""
    model = ModelWork(name="iris.default", digest="sha256:" + "0" * 64, format="onnx")
    variables = (Variable(name="LEVER", value=lever), *changes.pop("variables", ()))
    fields = {"work": WorkSpec(serve=ServeWork(models=(model,))), **changes}
    return Unit(name=name, owner=owner, revision=name.partition(".")[0], variables=variables, **fields)


def task(name: str = "iris-prepare-abc-1.default", *, lever: str = "", **changes: Any) -> Task:
    """A task that prepares one model."""
    variables = (Variable(name="LEVER", value=lever),)
    fields = {"owner": MODEL, "work": WorkSpec(prepare=PrepareWork(uri="iris.onnx")), **changes}
    return Task(name=name, variables=variables, **fields)


def crew(name: str = "score-job-abc.default", *, lever: str = "", **changes: Any) -> Task:
    """A task of two members that score, started again until the work is done."""
    model = ModelWork(name="iris.default", digest="sha256:" + "0" * 64, format="onnx")
    score = ScoreWork(job="uid-1", model=model, input=InputWork(uri="in"), output=OutputWork(uri="out"))
    fields = {"work": WorkSpec(score=score), "parallelism": 2, **changes}
    return _restarted(name, lever, fields)


def gang(name: str = "train-job-abc.default", *, lever: str = "", **changes: Any) -> Task:
    """A task of two members that run a program together."""
    run = RunWork(job="uid-2", job_name="default/train", command=("train",), nodes=2)
    fields = {"work": WorkSpec(run=run), "parallelism": 2, "gang": True, **changes}
    return _restarted(name, lever, fields)


def following() -> StreamWork:
    """The work of a stream."""
    return StreamWork(
        name="default.fraud",
        revision="fraud-str-00001",
        model=ModelWork(name="fraud.default", digest="sha256:" + "0" * 64, format="onnx"),
        source=SourceWork(uri="nats://local", stream="payments", subjects=("payments.*",)),
        sink=SinkWork(uri="nats://local", stream="scored", subject="scored"),
    )


def stream(name: str = "fraud-str-00001.default", *, lever: str = "", **changes: Any) -> Unit:
    """A unit that follows a stream."""
    return unit(name, STREAM, lever=lever, **{"work": WorkSpec(stream=following()), **changes})


def clean(name: str = "fraud-clean-abc.default", *, lever: str = "", **changes: Any) -> Task:
    """A task that removes what a stream has left."""
    return task(
        name, lever=lever, **{"owner": STREAM, "work": WorkSpec(clean=CleanWork(stream=following())), **changes}
    )


def _restarted(name: str, lever: str, fields: dict[str, Any]) -> Task:
    variables = (Variable(name="LEVER", value=lever), *fields.pop("variables", ()))
    defaults = {"owner": JOB, "restart": True, "deadline_seconds": 0.0, "grace_seconds": 20.0}
    return Task(name=name, variables=variables, **{**defaults, **fields})


def found(rig: Rig, name: str) -> ObservedUnit | None:
    """A unit as it is observed."""
    return next((each for each in rig.driver.observe().units if each.unit.name == name), None)


def members(rig: Rig, name: str) -> tuple[ObservedReplica, ...]:
    """Its replicas."""
    each = found(rig, name)
    return each.members if each else ()


def states(rig: Rig, name: str) -> list[ReplicaState]:
    """Their states, by ordinal."""
    return [member.state for member in members(rig, name)]


def result(rig: Rig, name: str) -> ObservedTask | None:
    """A task as it is observed."""
    return next((each for each in rig.driver.observe().tasks if each.name == name), None)


def crewed(rig: Rig, name: str) -> tuple[ObservedMember, ...]:
    """Members of a task."""
    each = result(rig, name)
    return each.members if each else ()


def stages(rig: Rig, name: str) -> list[MemberState]:
    """Their states, by index."""
    return [member.state for member in crewed(rig, name)]


def failures(rig: Rig, name: str) -> int:
    """Of members of a task."""
    each = result(rig, name)
    return each.failures if each else 0


def pids(rig: Rig, name: str) -> set[int]:
    """Of those that have a process."""
    return {member.pid for member in crewed(rig, name) if member.pid}


async def until(rig: Rig, fact: Callable[[], bool], what: str) -> None:
    """Wait for a fact, on the driver's clock."""
    deadline = rig.clock.monotonic() + _PATIENCE_SECONDS
    while not fact():
        assert rig.clock.monotonic() < deadline, f"{what}: not in time; there is {rig.driver.observe()}"
        await rig.step()


async def ended(rig: Rig, name: str) -> ObservedTask:
    """Wait until a task has ended."""

    def over() -> bool:
        each = result(rig, name)
        return each is not None and each.finished_at is not None

    await until(rig, over, f"{name} has ended")
    each = result(rig, name)
    assert each is not None
    return each


async def working(rig: Rig, name: str, parallelism: int = 2) -> tuple[ObservedMember, ...]:
    """Wait until exactly so many members are there and run."""
    expected = [MemberState.RUNNING] * parallelism
    await until(rig, lambda: stages(rig, name) == expected, f"{parallelism} running of {name}")
    return crewed(rig, name)


async def busy(rig: Rig, name: str, parallelism: int = 2) -> tuple[ObservedMember, ...]:
    """Wait until so many members with the lever `progress` have reported: they know what to do at SIGTERM."""

    def told() -> bool:
        return all(each.report is not None and each.report.job is not None for each in crewed(rig, name))

    await working(rig, name, parallelism)
    await until(rig, told, f"progress of {name}")
    return crewed(rig, name)


async def upset(rig: Rig, name: str, reason: str, index: int = 0) -> str:
    """Wait until a member of a task has this trouble; returns its message."""

    def has() -> bool:
        some = crewed(rig, name)
        trouble = some[index].trouble if index < len(some) else None
        return trouble is not None and trouble.reason == reason

    await until(rig, has, f"member {index} of {name} in trouble {reason}")
    trouble = crewed(rig, name)[index].trouble
    assert trouble is not None
    return trouble.message


async def ready(rig: Rig, name: str, replicas: int = 1) -> tuple[ObservedReplica, ...]:
    """Wait until exactly so many replicas are there and ready."""
    await until(rig, lambda: states(rig, name) == [ReplicaState.READY] * replicas, f"{replicas} ready of {name}")
    return members(rig, name)


async def troubled(rig: Rig, name: str, reason: str) -> ObservedReplica:
    """Wait until the first replica has this trouble."""

    def has() -> bool:
        return any(each.trouble is not None and each.trouble.reason == reason for each in members(rig, name))

    await until(rig, has, f"{name} in trouble {reason}")
    return members(rig, name)[0]


def told(rig: Rig, name: str) -> tuple[StreamReport | None, ...]:
    """What the replicas of a stream report, by ordinal."""
    return tuple(each.report.stream if each.report else None for each in members(rig, name))


def message(replica: ObservedReplica) -> str:
    """Of its trouble."""
    assert replica.trouble is not None
    return replica.trouble.message


async def refused(rig: Rig, action: Action, error: type[Exception]) -> str:
    """Apply what must be refused; returns what it says."""
    try:
        await rig.driver.apply(action)
    except error as refusal:
        return str(refusal)
    raise AssertionError(f"{action} must be refused with {error.__name__}")


@asynccontextmanager
async def hinted(rig: Rig) -> AsyncIterator[list[Key]]:
    """Collects hints meanwhile."""
    keys: list[Key] = []

    async def collect() -> None:
        async for key in rig.driver.hints():
            keys.append(key)  # noqa: PERF401  it is read meanwhile

    async with asyncio.TaskGroup() as group:
        collecting = group.create_task(collect())
        try:
            yield keys
        finally:
            collecting.cancel()
