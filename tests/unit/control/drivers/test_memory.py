import asyncio

import pytest

from modelyard.base.clock import ManualClock
from modelyard.base.conditions import Reason
from modelyard.control.drivers.memory import MemoryDriver
from modelyard.control.ir.actions import Run, Start
from modelyard.control.ir.observed import MemberState, ObservedMember, ObservedReplica, ReplicaState
from modelyard.control.ir.unit import SecretKey, Variable
from modelyard.testing import driver_rig, driver_suite
from modelyard.testing.driver_rig import MACHINE, stream, task, unit
from modelyard.wire.report import (
    CleanReport,
    Failure,
    JobReport,
    PrepareReport,
    Report,
    ServeReport,
    ShadowReport,
    StreamReport,
    failure,
)
from modelyard.wire.work import WorkSpec

FOUND = Report(prepare=PrepareReport(digest="sha256:" + "0" * 64, format="onnx"))


CLEANED = Report(clean=CleanReport(done=True))


class MemoryRig:
    """Pulls the driver's levers as the processes would act."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.secrets: dict[SecretKey, str] = {}
        self.secret_files: dict[str, dict[str, bytes]] = {}
        self.driver = MemoryDriver(
            self.clock,
            machine=MACHINE,
            secrets=lambda _, key: self.secrets.get(key),
            secret_files=lambda _, name: self.secret_files.get(name),
        )
        self._draining: dict[str, float] = {}
        self._began: dict[int, float] = {}
        self._stumbled: set[str] = set()

    async def step(self) -> None:
        self.clock.advance(0.05)
        await asyncio.sleep(0)
        observed = self.driver.observe()
        for each in observed.units:
            for member in each.members:
                says = levers(each.unit.variables)
                self._act(member, says)
                self._tell(each.unit.name, member.name, says)
        for running in observed.tasks:
            work = self.driver._tasks[running.name].task
            if work.restart:
                for one in running.members:
                    self._join(one, levers(work.variables, to=one.name.rpartition("-")[2]))
            elif running.finished_at is None:
                self._work(running.name)

    def kill(self, process: ObservedReplica | ObservedMember) -> None:
        if isinstance(process, ObservedReplica):
            self.driver.crash(process.name, message="was ended by SIGKILL")
        else:
            self.driver.end(process.name, status=-9, how="was ended by SIGKILL")

    def work(self, process: ObservedReplica) -> WorkSpec:
        return self.driver.work(process.name)

    def look_again(self) -> None:
        self.driver.look_again()

    def _act(self, member: ObservedReplica, says: dict[str, str]) -> None:
        if member.state is ReplicaState.STARTING and "exit" in says:
            self.driver.crash(member.name, message=f"ended with exit status {says['exit']}")
        elif member.state is ReplicaState.STARTING and "failure" in says:
            self.driver.crash(member.name, says["failure"], "the file ends after 12 bytes")
        elif member.state is ReplicaState.STARTING and "away" in says:
            told = Failure(reason=Reason.BROKER_UNREACHABLE, message="nobody listens there", retry=True)
            self.driver.report(member.name, StreamReport(problem=told))
        elif member.state is ReplicaState.STARTING and "waits" in says:
            self.driver.report(member.name, StreamReport(connected=True))
        elif member.state is ReplicaState.STARTING and "hang" not in says:
            self.driver.make_ready(member.name)
        elif member.state is ReplicaState.DRAINING and "stubborn" not in says:
            began = self._draining.setdefault(member.name, self.clock.monotonic())
            if self.clock.monotonic() - began >= float(says.get("drain", 0)):
                self.driver.drained(member.name)

    def _tell(self, unit: str, name: str, says: dict[str, str]) -> None:
        """Report as a process that is ready."""
        member = next((each for each in driver_rig.members(self, unit) if each.name == name), None)
        if member is None or member.state is not ReplicaState.READY:
            return
        late = self.clock.monotonic() - self._began.setdefault(member.pid, self.clock.monotonic()) >= 0.2
        if late and "copies" in says:
            found = ServeReport(ready=True, models=("iris.default",), shadow=ShadowReport(compared=7))
            self.driver.report(name, Report(serve=found))
        elif late and "later" in says:
            self.driver.report(name, failure(says["later"], "record 7 cannot be scored"))
        elif late and "progress" in says:
            self.driver.report(name, StreamReport(ready=True, connected=True, records=7))

    def _work(self, name: str) -> None:
        task = self.driver._tasks[name].task
        says = levers(task.variables)
        if "exit" in says:
            self.driver.finish(name, message=f"it ended with exit status {says['exit']} without a report")
        elif "failure" in says:
            self.driver.finish(name, failure(says["failure"], "the file ends after 12 bytes"))
        elif "hang" not in says:
            self.driver.finish(name, CLEANED if task.work.clean else FOUND)

    def _join(self, member: ObservedMember, says: dict[str, str]) -> None:
        """Act as a member of a job, unless another one has just ended it."""
        now = self.clock.monotonic()
        there = [each for running in self.driver.observe().tasks for each in running.members]
        if not member.pid or member.pid not in {each.pid for each in there}:
            return
        began = self._began.setdefault(member.pid, now)
        if member.state is MemberState.ENDING:
            ending = self._draining.setdefault(f"{member.pid}", now)
            if "stubborn" not in says and now - ending >= float(says.get("drain", 0)):
                self.driver.end(member.name, status=1)
            return
        index = member.name.rpartition("-")[2]
        if "exit" in says or ("once" in says and says["once"] not in self._stumbled):
            self._stumbled.add(says.get("once", ""))
            self.driver.end(member.name, status=3)
        elif "fatal" in says:
            self.driver.end(member.name, status=42, report=failure(says["fatal"], "line 7 is damaged"))
        elif "retry" in says:
            told = failure(says["retry"], "the store does not answer", retry=True)
            self.driver.end(member.name, status=4, report=told)
        elif "silent" in says:
            self.driver.end(member.name)
        elif "progress" in says and member.report is None and now - began >= 0.2:
            self.driver.report(member.name, Report(job=JobReport(run=1, shards=4, committed=1)))
        elif "done" in says and now - began >= float(says["done"] or 0):
            self.driver.end(member.name, report=Report(job=JobReport(done=True, note=f"by member {index}")))


def levers(variables: tuple[Variable, ...], to: str = "0") -> dict[str, str]:
    words = next((each.value for each in variables if each.name == "LEVER"), "").split()
    said = [word.rpartition(":") for word in words]
    return dict(word.partition("=")[::2] for name, _, word in said if name in ("", to))


@pytest.fixture
def rig() -> MemoryRig:
    return MemoryRig()


class TestMemoryDriver(driver_suite.DriverSuite):
    pass


async def test_impossible_levers_are_refused(rig: MemoryRig) -> None:
    iris = unit()
    first = f"{iris.name}-0"
    for lever in (rig.driver.make_ready, rig.driver.crash, rig.driver.drained, rig.driver.finish):
        with pytest.raises(ValueError, match=r"not there|does not run"):
            lever(first)
    await rig.driver.apply(Start(unit=iris, replicas=1))
    rig.driver.make_ready(first)
    with pytest.raises(ValueError, match="it must be Starting"):
        rig.driver.make_ready(first)
    with pytest.raises(ValueError, match="it must be Draining"):
        rig.driver.drained(first)
    await rig.driver.apply(Run(task=task()))
    for arguments in ({}, {"report": FOUND, "message": "both"}, {"report": Report(serve=ServeReport(ready=True))}):
        with pytest.raises(ValueError, match="a task ends with"):
            rig.driver.finish(task().name, **arguments)
    rig.driver.finish(task().name, FOUND)
    with pytest.raises(ValueError, match="does not run"):
        rig.driver.finish(task().name, FOUND)


async def test_a_replica_that_was_ready_for_a_minute_is_forgiven(rig: MemoryRig) -> None:
    iris = unit()
    first = f"{iris.name}-0"
    await rig.driver.apply(Start(unit=iris, replicas=1))
    for _ in range(3):
        await driver_rig.ready(rig, iris.name)
        rig.driver.crash(first)
    await driver_rig.ready(rig, iris.name)
    rig.clock.advance(60)
    rig.driver.crash(first, Reason.CRASHED)
    rig.clock.advance(0.2)
    assert driver_rig.states(rig, iris.name) == [ReplicaState.STARTING]


async def test_a_stream_reports_only_what_its_runners_could(rig: MemoryRig) -> None:
    fraud, iris = stream(), unit()
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    await rig.driver.apply(Start(unit=iris, replicas=1))
    with pytest.raises(ValueError, match="replicas of streams report"):
        rig.driver.report(f"{iris.name}-0", StreamReport())
    with pytest.raises(ValueError, match="replicas of streams report"):
        rig.driver.report(f"{fraud.name}-0", Report(serve=ServeReport(ready=True)))
    rig.driver.report(f"{fraud.name}-0", StreamReport(connected=True))
    assert driver_rig.states(rig, fraud.name) == [ReplicaState.STARTING]
    rig.driver.make_ready(f"{fraud.name}-0")
    assert driver_rig.told(rig, fraud.name) == (StreamReport(ready=True, connected=True),)
    assert driver_rig.states(rig, fraud.name) == [ReplicaState.READY]
    rig.driver.crash(f"{fraud.name}-0")
    with pytest.raises(ValueError, match="is Pending, it must be"):
        rig.driver.report(f"{fraud.name}-0", StreamReport())
    with pytest.raises(ValueError, match="is Pending, it must be"):
        rig.driver.work(f"{fraud.name}-0")
