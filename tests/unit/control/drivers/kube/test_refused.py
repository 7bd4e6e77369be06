import pytest

from modelyard.base.clock import ManualClock
from modelyard.base.conditions import Reason
from modelyard.control.drivers.kube.gangs import attempt_of, pause_after
from modelyard.control.drivers.kube.refused import Refused
from modelyard.control.ir.actions import Run, Start
from modelyard.control.ir.observed import Observed
from modelyard.control.ir.values import Key
from modelyard.control.kube.client import ApiError
from modelyard.testing.driver_rig import IRIS, JOB, MODEL, ROSE, crew, task, unit

INVALID = ApiError(422, "Invalid", 'Deployment "iris-svc-00001" is invalid: spec.template.spec.tolerations[0].operator')


class World:
    """What was refused, and who was told."""

    def __init__(self) -> None:
        self.told: list[Key] = []
        self.refused = Refused(self.told.append, ManualClock())

    def refuse(self, action: Start | Run, error: ApiError = INVALID) -> None:
        with self.refused.instead_of(action):
            raise error

    def seen(self, owner: Key | None = None) -> Observed:
        return self.refused.add_to(Observed(), owner)


def test_a_unit_that_was_refused_has_a_replica_that_says_why() -> None:
    world = World()
    world.refuse(Start(unit=unit(), replicas=2))
    (found,) = world.seen(IRIS).units
    assert (found.unit, found.replicas) == (unit(), 2)
    assert found.members[0].trouble is not None
    assert found.members[0].trouble.reason == Reason.POD_REFUSED
    assert "tolerations" in found.members[0].trouble.message
    assert world.told == [IRIS]
    assert world.seen(ROSE) == Observed()


def test_a_unit_that_nobody_wants_any_more_is_forgotten() -> None:
    world = World()
    world.refuse(Start(unit=unit(), replicas=1))
    world.refused.forget(unit().name, IRIS)
    world.refused.forget(unit().name, IRIS)
    assert world.seen() == Observed()
    assert world.told == [IRIS, IRIS]


@pytest.mark.parametrize(("what", "owner", "again"), [(task(), MODEL, True), (crew(), JOB, False)])
def test_a_task_that_was_refused_has_failed(what: object, owner: Key, again: bool) -> None:
    world = World()
    world.refuse(Run(task=what))  # type: ignore[arg-type]
    (found,) = world.seen(owner).tasks
    assert found.finished_at is not None
    assert found.report is not None
    assert found.report.failure is not None
    assert found.report.failure.retry is again


def test_what_may_heal_at_once_is_no_observation() -> None:
    world = World()
    with pytest.raises(ApiError):
        world.refuse(Start(unit=unit(), replicas=1), ApiError(500, "InternalError", "etcd is away"))
    assert world.seen() == Observed()


def test_gangs_wait_longer_after_each_failure() -> None:
    assert [pause_after(attempt) for attempt in (1, 2, 3, 50)] == [1.0, 2.0, 4.0, 60.0]
    assert attempt_of({"metadata": {"annotations": {"modelyard.dev/attempt": "3"}}}) == 3
    assert attempt_of({"metadata": {}}) == 1
