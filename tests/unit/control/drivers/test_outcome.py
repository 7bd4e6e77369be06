import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.control.drivers.outcome import Done, End, Failed, Final, Left, Outcome, combine, judge, known
from modelyard.wire.report import JobReport, PrepareReport, Report, failure

DONE = Report(job=JobReport(done=True))
HALF = Report(job=JobReport(committed=1))
FINAL = failure("InputInvalid", "line 7 is damaged")
LATER = failure("StoreUnreachable", "no answer", retry=True)
FOUND = Report(prepare=PrepareReport(digest="sha256:0", format="onnx"))
_ENDED = "ended without saying that its work is done"
outcomes = st.sampled_from([Done(DONE), Final(FINAL), Failed("Crashed", "x"), Left()])


@pytest.mark.parametrize("asked", [True, False])
def test_work_that_is_done_counts_always(asked: bool) -> None:
    assert judge(End(status=0, report=DONE, asked=asked)) == Done(DONE)


@pytest.mark.parametrize("status", [0, 4, 42, -9])
def test_a_final_failure_counts_whatever_the_exit_status(status: int) -> None:
    assert judge(End(status=status, report=FINAL)) == Final(FINAL)


@pytest.mark.parametrize(
    ("end", "failed"),
    [
        (End(status=4, report=LATER, seconds=5), Failed("StoreUnreachable", "no answer", 5)),
        (End(status=0, report=HALF, said="; its log"), Failed("Crashed", _ENDED + "; its log")),
        (End(status=0, report=FOUND), Failed("Crashed", _ENDED)),
        (End(status=0), Failed("Crashed", _ENDED)),
        (End(status=3, report=DONE, how="ended with 3"), Failed("Crashed", "ended with 3", progress=(0, 0, 0))),
        (End(status=-9, how="was killed", said="; its log"), Failed("Crashed", "was killed; its log")),
        (End(status=-9, report=DONE, cause=("Crashed", "ate too much")), Failed("Crashed", "ate too much")),
        (End(status=0, report=DONE, cause=("Crashed", "no report")), Failed("Crashed", "no report")),
        (End(status=1, report=failure("Nonsense", "x", retry=True)), Failed("Crashed", "x")),
    ],
)
def test_anything_else_is_a_failure_that_says_why(end: End, failed: Failed) -> None:
    assert judge(end) == failed


@pytest.mark.parametrize("report", [None, HALF, FINAL, LATER])
@pytest.mark.parametrize("status", [0, 1, -15, -9])
def test_the_end_of_one_that_was_asked_is_no_failure(report: Report | None, status: int) -> None:
    assert judge(End(status=status, report=report, asked=True, cause=("Crashed", "ate too much"))) == Left()


def test_an_unknown_reason_becomes_a_known_one() -> None:
    assert known("InputInvalid") is Reason.INPUT_INVALID
    assert known("Nonsense", Reason.LOAD_FAILED) is Reason.LOAD_FAILED


@given(st.lists(outcomes, min_size=1, max_size=5))
def test_members_that_come_and_go_together_have_one_outcome(some: list[Outcome]) -> None:
    together = combine(some)
    assert together in some or together == Left()
    assert isinstance(together, Done) == all(isinstance(each, Done) for each in some)
    assert isinstance(together, Final) == any(isinstance(each, Final) for each in some)
    if isinstance(together, Failed):
        assert not any(isinstance(each, Final) for each in some)
