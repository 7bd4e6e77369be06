import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import RetryLater, UserError
from modelyard.control.drivers import rules
from modelyard.control.ir.actions import Adjust, Resize, Run, Start
from modelyard.control.ir.observed import Usage
from modelyard.testing.driver_rig import IRIS, JOB, ROSE, clean, crew, gang, stream, task, unit


def test_pauses_double_up_to_a_minute() -> None:
    backoff = rules.Backoff()
    assert [backoff.pause(None) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_first_end_of_a_ready_replica_costs_little_and_further_ones_more() -> None:
    backoff = rules.Backoff()
    assert [backoff.pause(5.0) for _ in range(4)] == [0.1, 2, 4, 8]


def test_a_minute_of_being_ready_makes_up_for_the_past() -> None:
    backoff = rules.Backoff()
    for _ in range(6):
        backoff.pause(None)
    assert backoff.pause(60.0) == 0.1


@given(st.lists(st.none() | st.floats(0, 200)))
def test_no_pause_is_ever_zero_or_above_a_minute(ends: list[float | None]) -> None:
    backoff = rules.Backoff()
    assert all(0 < backoff.pause(end) <= 60 for end in ends)


@given(st.dictionaries(st.integers(0, 30), st.booleans(), max_size=20), st.integers(0, 30))
def test_what_stays_and_what_comes_is_what_was_asked_for(members: dict[int, bool], replicas: int) -> None:
    change = rules.change(members, replicas)
    staying = {number for number, leaving in members.items() if not leaving}
    after = (staying - set(change.leave)) | set(change.add)
    assert len(after) == replicas
    assert set(change.leave) <= staying
    assert not set(change.add) & members.keys()
    assert not (change.add and change.leave)
    assert all(left > kept for left in change.leave for kept in staying - set(change.leave))


def test_the_highest_ordinals_leave_first_and_the_lowest_free_ones_come() -> None:
    assert rules.change({0: False, 1: False, 2: False}, 1) == rules.Change(leave=(2, 1))
    assert rules.change({0: False, 1: True}, 3) == rules.Change(add=(2, 3))
    assert rules.change({1: False}, 2) == rules.Change(add=(0,))


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\0b", "A", "-a", "a" * 201, "a b", "ä"])
def test_names_that_are_no_file_names_of_ours_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        rules.check_name(name, "unit")


def test_a_name_is_taken_by_one_content() -> None:
    start = Start(unit=unit(), replicas=1)
    other = unit(drain_seconds=1.0)
    rules.check_start(start, None, stopping=False)
    rules.check_start(start, unit(), stopping=False)
    with pytest.raises(UserError, match="another content"):
        rules.check_start(start, other, stopping=False)
    with pytest.raises(RetryLater, match="still ending"):
        rules.check_start(start, other, stopping=True)


def test_work_must_fit_the_action() -> None:
    serving, preparing = unit(), task()
    with pytest.raises(UserError, match="must set serve or stream"):
        rules.check_start(Start(unit=unit(work=preparing.work), replicas=1), None, stopping=False)
    with pytest.raises(UserError, match="must set one of prepare, score, run, clean"):
        rules.check_run(Run(task=task(work=serving.work)))
    rules.check_start(Start(unit=stream(), replicas=1), None, stopping=False)
    with pytest.raises(UserError, match="must set one of prepare, score, run, clean"):
        rules.check_run(Run(task=task(work=stream().work)))


def test_what_has_begun_is_told_to_streams_alone() -> None:
    work = rules.told(stream().work, (0, 3))
    assert work.stream is not None
    assert work.stream.begun == (0, 3)
    assert rules.told(work, ()) == stream().work
    assert rules.told(unit().work, (0, 3)) == unit().work


def test_a_resize_is_checked() -> None:
    with pytest.raises(RetryLater, match="does not run"):
        rules.check_resize(Resize(unit="x", owner=IRIS, replicas=1), None)
    with pytest.raises(UserError, match=r"belongs to ModelService default/iris, not to ModelService default/rose"):
        rules.check_resize(Resize(unit=unit().name, owner=ROSE, replicas=1), unit())
    with pytest.raises(UserError, match="0 to 1000"):
        rules.check_resize(Resize(unit=unit().name, owner=IRIS, replicas=1001), unit())


def test_a_member_that_ran_for_a_minute_starts_afresh() -> None:
    backoff = rules.Backoff()
    assert [backoff.pause_after(seconds) for seconds in (5.0, 59.0, 1.0, 60.0, 1.0)] == [1, 2, 4, 0.1, 2]


def test_a_member_whose_job_advanced_starts_afresh() -> None:
    backoff = rules.Backoff()
    lives = [(1, 0, 0), (1, 3, 0), (1, 3, 0), (1, 3, 0), (1, 4, 0), ()]
    assert [backoff.pause_after(1.0, progress) for progress in lives] == [0.1, 0.1, 2, 4, 0.1, 2]


def test_a_run_is_checked() -> None:
    for good in (task(), clean(), crew(), crew(parallelism=0), crew(restart=False, parallelism=1), gang()):
        rules.check_run(Run(task=good))
    with pytest.raises(UserError, match="a prepare task runs once"):
        rules.check_run(Run(task=task(restart=True)))
    with pytest.raises(UserError, match="a clean task runs once"):
        rules.check_run(Run(task=clean(restart=True)))
    with pytest.raises(UserError, match="one member and is no gang"):
        rules.check_run(Run(task=task(parallelism=2)))
    with pytest.raises(UserError, match="gang needs work that sets run"):
        rules.check_run(Run(task=crew(gang=True)))
    with pytest.raises(UserError, match="0 to 1000, not 1001"):
        rules.check_run(Run(task=crew(parallelism=1001)))


def test_an_adjustment_is_checked() -> None:
    adjust = Adjust(task=crew().name, owner=JOB, parallelism=1)
    rules.check_adjust(adjust, crew(), forgotten=False)
    for present, forgotten in ((None, False), (crew(), True)):
        with pytest.raises(RetryLater, match="does not run"):
            rules.check_adjust(adjust, present, forgotten=forgotten)
    with pytest.raises(UserError, match="belongs to"):
        rules.check_adjust(Adjust(task=crew().name, owner=ROSE, parallelism=1), crew(), forgotten=False)
    with pytest.raises(UserError, match="is fixed"):
        rules.check_adjust(adjust, gang(), forgotten=False)


def test_usage_is_the_sum_of_its_parts() -> None:
    parts = (Usage(cpu_seconds=1, memory_byte_seconds=2), Usage(cpu_seconds=3, gpu_seconds=4))
    assert rules.total(parts) == Usage(cpu_seconds=4, memory_byte_seconds=2, gpu_seconds=4)
    assert rules.total(()) == Usage()
