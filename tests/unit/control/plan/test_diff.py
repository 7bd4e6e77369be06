from modelyard.control.ir.actions import Start, Stop
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedUnit
from modelyard.control.ir.unit import DesiredUnit, Unit
from modelyard.control.ir.values import Key
from modelyard.control.plan.diff import diff
from modelyard.wire.work import ModelWork, ServeWork, WorkSpec

OWNER = Key(kind="ModelService", namespace="default", name="iris")


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
