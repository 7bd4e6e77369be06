import msgspec
import pytest

from modelyard.control.ir.actions import Adjust, Forget, Resize, Run, Start, Stop
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedReplica, ObservedTask, ObservedUnit, ReplicaState
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import DesiredUnit, Unit
from modelyard.control.ir.values import Key
from modelyard.control.plan.diff import diff, endpoints
from modelyard.wire.work import (
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

OWNER = Key(kind="ModelService", namespace="default", name="iris")

MODEL = ModelWork(name="iris", digest="sha256:new", format="onnx")
SCORE = WorkSpec(score=ScoreWork(job="uid", model=MODEL, input=InputWork(uri="in"), output=OutputWork(uri="out")))
RUN = WorkSpec(run=RunWork(job="uid", job_name="default/train", command=("train",)))


def _task(**changes: object) -> Task:
    task = Task(name="score-job-1.default", owner=OWNER, work=SCORE, restart=True, parallelism=3)
    return msgspec.structs.replace(task, **changes)


def _known(**changes: object) -> Observed:
    known = ObservedTask(name="score-job-1.default", owner=OWNER, parallelism=2)
    return Observed(tasks=(msgspec.structs.replace(known, **changes),))


def _unit(digest: str) -> Unit:
    work = WorkSpec(serve=ServeWork(models=(ModelWork(name="iris", digest=digest, format="onnx"),)))
    return Unit(name="iris-svc-00001.default", owner=OWNER, revision="iris-svc-00001", work=work)


def test_a_unit_of_an_earlier_service_of_the_same_name_ends_before_the_wanted_one_starts() -> None:
    desired = Desired(units=(DesiredUnit(unit=_unit("sha256:new"), replicas=1),))
    old = Observed(units=(ObservedUnit(unit=_unit("sha256:old"), replicas=1),))
    assert diff(desired, old) == (Stop(unit="iris-svc-00001.default", owner=OWNER),)
    assert diff(desired, Observed()) == (Start(unit=_unit("sha256:new"), replicas=1),)


def test_what_is_as_wanted_needs_no_action() -> None:
    unit = _unit("sha256:new")
    observed = Observed(units=(ObservedUnit(unit=unit, replicas=2),))
    assert diff(Desired(units=(DesiredUnit(unit=unit, replicas=2),)), observed) == ()


def test_endpoints_keep_their_zones_and_have_none_where_none_is_known() -> None:
    def ready(address: str, zone: str = "", state: ReplicaState = ReplicaState.READY) -> ObservedReplica:
        return ObservedReplica(name=address, state=state, address=address, zone=zone)

    def found(*members: ObservedReplica) -> Endpoints:
        (each,) = endpoints(Observed(units=(ObservedUnit(unit=_unit("sha256:a"), replicas=3, members=members),)))
        return each

    unit = "iris-svc-00001.default"
    gone = ready("d:1", "z", ReplicaState.DRAINING)
    assert found(ready("b:1"), ready("a:1"), gone) == Endpoints(unit=unit, addresses=("a:1", "b:1"))
    assert found(ready("b:1", "x"), ready("a:1", "y"), ready("c:1")) == Endpoints(
        unit=unit, addresses=("a:1", "b:1", "c:1"), zones=("y", "x", "")
    )


def test_a_stream_is_told_what_has_begun_and_answers_no_requests() -> None:
    source, sink = SourceWork(uri="nats://local", stream="in", subjects=("in",)), SinkWork(uri="out")
    work = StreamWork(name="default.iris", revision="iris-stream-00001", model=MODEL, source=source, sink=sink)
    unit = Unit(name="iris-stream-00001.default", owner=OWNER, revision=work.revision, work=WorkSpec(stream=work))
    desired = Desired(units=(DesiredUnit(unit=unit, replicas=2, begun=(0, 1)),))
    assert diff(desired, Observed()) == (Start(unit=unit, replicas=2, begun=(0, 1)),)
    observed = Observed(units=(ObservedUnit(unit=unit, replicas=2, begun=(0,)),))
    assert diff(desired, observed) == (Resize(unit=unit.name, owner=OWNER, replicas=2, begun=(0, 1)),)
    assert diff(desired, Observed(units=(ObservedUnit(unit=unit, replicas=2, begun=(0, 1)),))) == ()
    assert endpoints(observed) == ()


def test_a_task_is_run_adjusted_and_forgotten() -> None:
    desired = Desired(tasks=(_task(),))
    assert diff(desired, Observed()) == (Run(task=_task()),)
    assert diff(desired, _known()) == (Adjust(task="score-job-1.default", owner=OWNER, parallelism=3),)
    assert diff(desired, _known(parallelism=3)) == ()
    assert diff(Desired(), _known()) == (Forget(task="score-job-1.default", owner=OWNER),)


@pytest.mark.parametrize(
    ("task", "known"),
    [
        (_task(), _known(finished_at=7.0)),
        (_task(work=RUN, gang=True), _known()),
        (_task(work=WorkSpec(prepare=PrepareWork(uri="iris.onnx")), restart=False), _known()),
    ],
)
def test_what_has_ended_or_has_a_fixed_number_is_not_adjusted(task: Task, known: Observed) -> None:
    assert diff(Desired(tasks=(task,)), known) == ()
