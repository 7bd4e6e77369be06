from modelyard.base.conditions import Condition, Reason, Status, stamp

READY = Condition(type="Ready", status=Status.TRUE, reason=Reason.SERVING)
BROKEN = Condition(type="Ready", status=Status.FALSE, reason=Reason.CRASHED, message="ended")


def test_the_transition_time_is_kept_while_the_status_is_the_same() -> None:
    first = stamp((BROKEN,), (), 1, "2026-01-01T00:00:00Z")
    other = Condition(type="Ready", status=Status.FALSE, reason=Reason.STARTING)
    second = stamp((other,), first, 2, "2026-01-02T00:00:00Z")
    assert (second[0].last_transition_time, second[0].observed_generation) == ("2026-01-01T00:00:00Z", 2)


def test_the_transition_time_moves_when_the_status_changes() -> None:
    first = stamp((BROKEN,), (), 1, "2026-01-01T00:00:00Z")
    assert stamp((READY,), first, 1, "2026-01-02T00:00:00Z")[0].last_transition_time == "2026-01-02T00:00:00Z"


def test_every_reason_is_a_camel_case_word() -> None:
    assert all(reason.value.isalpha() and reason.value[0].isupper() for reason in Reason)
