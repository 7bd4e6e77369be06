"""How far a job is, read from its status, and the words for it: in views, tables and answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelyard.base import durations
from modelyard.base.clock import seconds_since_epoch
from modelyard.base.conditions import Reason
from modelyard.sdk.objects import Object, condition, has_failed

_DIGEST_CHARACTERS = len("sha256:") + 12


class State(StrEnum):
    """One word for people. WAITING: for what it refers to, for room, or to be tried again."""

    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"

    @property
    def ended(self) -> bool:
        """Whether it stays so for good."""
        return self in (State.COMPLETE, State.FAILED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A job as its status tells. None, "" and 0 stand for what is not known.

    reason, message: of its main condition. shards: committed, planned. percent: 0 to 100. remaining_seconds: at the
    present pace. active, failed: runners that work, and failures so far. started, completed: seconds since 1970.
    """

    state: State
    reason: str = ""
    message: str = ""
    shards: tuple[int, int] | None = None
    rows: int | None = None
    total_rows: int | None = None
    error_rows: int = 0
    percent: int | None = None
    rows_per_second: int = 0
    remaining_seconds: int | None = None
    active: int = 0
    failed: int = 0
    metrics: tuple[tuple[str, str], ...] = ()
    started: float | None = None
    completed: float | None = None
    output: str = ""
    dead_letters: str = ""
    output_model: str = ""
    digest: str = ""

    def seconds(self, now: float) -> float | None:
        """How long it took, or takes until now; None if it has not started. now: seconds since 1970."""
        if self.started is None:
            return None
        return max(0.0, (now if self.completed is None else self.completed) - self.started)


def of(body: Mapping[str, Any]) -> Progress:
    """The progress of a ModelJob."""
    status: Mapping[str, Any] = body.get("status") or {}
    found = condition(body, "Complete")
    shards = status.get("shards")
    return Progress(
        state=_state(body, found),
        reason=str(found.get("reason") or ""),
        message=_first_line(str(found.get("message") or "")),
        shards=(shards["committed"], shards["planned"]) if shards else None,
        rows=status.get("rows"),
        total_rows=status.get("totalRows"),
        error_rows=status.get("errorRows") or 0,
        percent=status.get("progressPercentage"),
        rows_per_second=status.get("rowsPerSecond") or 0,
        remaining_seconds=status.get("estimatedRemainingSeconds"),
        active=status.get("active") or 0,
        failed=status.get("failed") or 0,
        metrics=tuple((each["name"], each["value"]) for each in status.get("metrics") or ()),
        started=_seconds(status.get("startTime")),
        completed=_seconds(status.get("completionTime")),
        output=status.get("output") or "",
        dead_letters=status.get("deadLetters") or "",
        output_model=status.get("outputModel") or "",
        digest=status.get("digest") or "",
    )


def _state(body: Mapping[str, Any], complete: Object) -> State:
    if has_failed(body):
        return State.FAILED
    if complete.get("status") == "True":
        return State.COMPLETE
    if condition(body, "Suspended").get("status") == "True":
        return State.SUSPENDED
    return {Reason.RUNNING: State.RUNNING, Reason.STARTING: State.STARTING}.get(
        complete.get("reason", ""), State.WAITING
    )


def rows(found: Progress) -> str:
    """`370,000 of 1,000,000 rows`; "" for a program, which has none."""
    if found.rows is None:
        return ""
    if found.total_rows is None or found.state is State.COMPLETE:
        return count(found.rows, "row")
    return f"{found.rows:,} of {count(found.total_rows, 'row')}"


def parts(found: Progress) -> tuple[str, ...]:
    """What is told while it works, most important first: rows, pace, rest, bad rows, failures, a program's numbers."""
    pace = f"{found.rows_per_second:,} rows/s" if found.rows_per_second else ""
    rest = f"{span(found.remaining_seconds)} left" if found.remaining_seconds is not None else ""
    errors = count(found.error_rows, "error") if found.error_rows else ""
    failed = count(found.failed, "failure") if found.failed else ""
    return tuple(filter(None, (rows(found), pace, rest, errors, failed, metrics(found))))


def metrics(found: Progress) -> str:
    """`accuracy 0.975, loss 0.1`."""
    return ", ".join(f"{name} {value}" for name, value in found.metrics)


def told(found: Progress) -> str:
    """One line beside the state: `37%  370,000 of 1,000,000 rows, 21,000 rows/s, 30 s left`, or what keeps it."""
    if found.state is State.RUNNING:
        percent = "" if found.percent is None else f"{found.percent}%"
        return "  ".join(filter(None, (percent, ", ".join(parts(found))))) or found.message or "running"
    if found.state is State.COMPLETE:
        return done(found)
    if not found.reason:
        return "not looked at yet"
    if found.state is State.SUSPENDED and (there := committed(found)):
        return f"{there} are committed and stay"
    cause = "" if found.reason == found.state else found.reason
    return ": ".join(filter(None, (cause, found.message)))


def line(found: Progress) -> str:
    """The same with the state, where that does not show by itself."""
    if not found.reason or (found.state is State.RUNNING and found.percent is not None):
        return told(found)
    return f"{found.state}  {told(found)}"


def done(found: Progress) -> str:
    """What a job that is Complete has done: `1,000,000 rows in 41 s, 2 could not be scored`."""
    if found.reason == Reason.ALREADY_DONE:
        return "an earlier job had done exactly this work; nothing was done again"
    seconds = found.seconds(0.0) if found.completed is not None else None
    time = "" if seconds is None else f" in {span(seconds)}" if seconds >= 1 else " in less than 1 s"
    errors = f", {found.error_rows:,} could not be scored" if found.error_rows else ""
    return f"{rows(found) or 'done'}{time}{errors}"


def committed(found: Progress) -> str:
    """What of an unfinished scoring job is visible already: `3 of 8 shards, 370,000 of 1,000,000 rows`; else ""."""
    if found.shards is None:
        return ""
    return ", ".join(filter(None, (f"{found.shards[0]:,} of {count(found.shards[1], 'shard')}", rows(found))))


def outcome(found: Progress) -> dict[str, str]:
    """Where everything is that a job left, by what it is."""
    named = found.output_model + (f" ({found.digest[:_DIGEST_CHARACTERS]})" if found.digest else "")
    return {
        name: value
        for name, value in (
            ("results", found.output),
            ("dead letters", found.dead_letters if found.error_rows else ""),
            ("output model", named if found.output_model else ""),
            ("metrics", metrics(found)),
        )
        if value
    }


def summary(subject: str, found: Progress, now: float) -> str:
    """How a job ended, in some lines. subject: as people call it. now: seconds since 1970."""
    seconds = found.seconds(now)
    if found.state is State.COMPLETE:
        head = f"{subject} is Complete: {done(found)}"
    else:
        what = committed(found)
        head = f"{subject} has failed" + (f" after {span(seconds)}" if seconds is not None else "")
        head += f"; {what} are committed and stay" if what else ""
    left = outcome(found)
    width = max(map(len, left), default=0)
    return "\n".join([head, *(f"  {name:<{width}}  {value}" for name, value in left.items())])


def span(seconds: float) -> str:
    """`41 s`, `5m12s`, `3h`."""
    return f"{int(seconds)} s" if seconds < 120 else durations.age(seconds)


def count(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _first_line(message: str) -> str:
    first, more, _ = message.partition("\n")
    return f"{first.rstrip(':')} ..." if more else first


def _seconds(stamp: object) -> float | None:
    try:
        return seconds_since_epoch(str(stamp)) if stamp else None
    except ValueError:
        return None
