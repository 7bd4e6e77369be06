from modelyard.base.conditions import Reason
from modelyard.control.ir.observed import MemberState, Observed, ObservedMember, ObservedTask, Trouble
from modelyard.control.ir.values import Key
from modelyard.control.plan.happenings import happenings

OWNER = Key(kind="ModelJob", namespace="default", name="score")
CRASHED = Trouble(reason=Reason.CRASHED, message="ended with exit status 3", since=1.0)


def _observed(trouble: Trouble | None) -> Observed:
    member = ObservedMember(name="score-job-1.default-0", state=MemberState.PENDING, trouble=trouble)
    return Observed(tasks=(ObservedTask(name="score-job-1.default", owner=OWNER, members=(member,)),))


def test_new_trouble_of_a_member_is_an_event_once() -> None:
    (event,) = happenings(_observed(None), _observed(CRASHED))
    assert (event.type, event.reason) == ("Warning", Reason.CRASHED)
    assert event.message == "score-job-1.default-0: ended with exit status 3"
    assert happenings(Observed(), _observed(CRASHED)) == (event,)
    assert happenings(_observed(CRASHED), _observed(CRASHED)) == ()
    assert happenings(_observed(CRASHED), _observed(None)) == ()


def test_making_room_for_others_is_nothing_bad() -> None:
    told = Trouble(reason=Reason.PREEMPTED, message="made room for iris", since=2.0)
    (event,) = happenings(_observed(CRASHED), _observed(told))
    assert (event.type, event.reason) == ("Normal", Reason.PREEMPTED)
