"""What the end of a member of a task means. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.base.conditions import Reason
from modelyard.wire.report import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How one member ended. status: its exit status, negative for a signal. report: its last one.

    asked: it had been asked to end. cause: reason and message of why it was ended. how, said: for people, how it ended,
    and its last lines. seconds: how long it ran.
    """

    status: int
    report: Report | None = None
    asked: bool = False
    cause: tuple[str, str] | None = None
    how: str = ""
    said: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """Its report says that the work is done."""

    report: Report


@dataclass(frozen=True, slots=True)
class Final:
    """Its report says that the work cannot be done; another attempt would not help."""

    report: Report


@dataclass(frozen=True, slots=True)
class Failed:
    """It is started again. seconds: how long it ran. progress: how far its job was then; () if it did not tell."""

    reason: str
    message: str
    seconds: float = 0.0
    progress: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """It ended as asked."""


Outcome = Done | Final | Failed | Left


def judge(end: End) -> Outcome:
    """Work that is done counts even if its member was asked to end; a failure does not, since ending may cause it."""
    report = end.report
    done = report is not None and report.job is not None and report.job.done
    if report is not None and done and end.status == 0 and end.cause is None:
        return Done(report)
    if end.asked:
        return Left()
    if end.cause is not None:
        reason, message = end.cause
        return Failed(reason, f"{message}{end.said}", end.seconds)
    if report is not None and report.failure is not None:
        told = report.failure
        return Failed(known(told.reason), told.message, end.seconds) if told.retry else Final(report)
    if end.status == 0:
        return Failed(Reason.CRASHED, f"ended without saying that its work is done{end.said}", end.seconds)
    return Failed(Reason.CRASHED, f"{end.how}{end.said}", end.seconds, progress(report))


def progress(report: Report | None) -> tuple[int, ...]:
    """Grows with the job: run, shards committed, percent told."""
    job = report.job if report else None
    return (job.run, job.committed, job.percent or 0) if job else ()


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """Of members that come and go together, by index: done if all are; else a final failure counts before others."""
    if all(isinstance(each, Done) for each in outcomes):
        return outcomes[0]
    for kind in (Final, Failed):
        for each in outcomes:
            if isinstance(each, kind):
                return each
    return Left()


def known(word: str, otherwise: Reason = Reason.CRASHED) -> Reason:
    """Reports are not trusted: an unknown reason becomes a known one."""
    return Reason(word) if word in Reason.__members__.values() else otherwise
