"""What a runner does next, given what lies at the output. Pure; time is an argument.

The protocol rests on one primitive, put-if-absent: of a run's record (who defines the run), of an attempt (who
begins a shard), of a part (who commits it), of the end (who closes it). Whoever loses reads what the winner has
written. Attempts only spread the work and count how often a shard was begun; a runner that ignored them would do
double work and no harm.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs.layout import Commit, RunSeen, Seen
from modelyard.runtime.jobs.shards import RunRecord
from modelyard.wire.work import ErrorsWork

MOST_ATTEMPTS = 12
"""Beginnings of one shard after which it counts as the cause."""
CAREFUL_FROM = 3
"""From this attempt on the model runs in a process of its own, so that rows that end it are found."""
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Follow:
    """Work on the run of that number."""

    number: int


@dataclass(frozen=True, slots=True)
class Take:
    """Try to begin the run of that number."""

    number: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything is done. already: by another job."""

    number: int
    already: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """The job has failed, and trying again changes nothing."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Find out whose the part of a shard is, and note its commit."""

    shard: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """Remove what earlier runs left."""


@dataclass(frozen=True, slots=True)
class Try:
    """Begin a shard for the count-th time."""

    shard: int
    count: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Others work on all that is left; look again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Close:
    """All parts are there: end the run."""


Opening = Follow | Take | Finish | Refuse
Step = Settle | Sweep | Try | Wait | Close | Finish | Refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a job asks for. identity: of what is done."""

    job: str
    identity: str
    mode: str
    uri: str


def open_output(seen: Seen, records: Mapping[int, RunRecord], wish: Wish) -> Opening:
    """Which run to work on. records: of all runs in the listing."""
    for number in sorted(records, reverse=True):
        if records[number].job == wish.job:
            return Finish(number, already=False) if seen.runs[number].closed else Follow(number)
    last = seen.latest
    alone = not any(seen.parts.get(number) for number in records if number != last)
    # What was done is there still, unless it was overwritten since; overwriting wants nothing else beside it.
    candidates = sorted(records, reverse=True) if wish.mode == "append" else [last] if last and alone else []
    for number in candidates:
        if records[number].identity == wish.identity:
            return Finish(number, already=True) if seen.runs[number].closed else Follow(number)
    if wish.mode == "overwrite":
        return Take(last + 1)
    if last and not seen.runs[last].closed:
        return Refuse(
            Reason.OUTPUT_IN_USE,
            f"another job (uid {records[last].job}) has begun to write to {wish.uri} and has not finished; wait for "
            "it, use another uri, or take it over with mode: overwrite; if that job is gone, remove what lies there",
        )
    if wish.mode == "create" and (last or seen.foreign):
        found = seen.foreign[0] if seen.foreign else f"the results of run {last}"
        return Refuse(
            Reason.OUTPUT_NOT_EMPTY,
            f"{wish.uri} holds {found} already; use an empty place, or mode: append or overwrite",
        )
    return Take(last + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Me:
    """A runner's own knowledge. busy: shards that its lanes work on. abandoned: shards whose last attempt is known
    to have ended, such as that of this runner's predecessor. since: (shard, count) -> when that attempt last showed
    a sign of life: its runner renews it every few seconds.

    start: where this runner begins to look for work, so that not all try the same shard.
    """

    now: float
    start: int = 0
    busy: Set[int] = frozenset()
    abandoned: Set[int] = frozenset()
    since: Mapping[tuple[int, int], float] = field(default_factory=dict)
    patience_seconds: float = PATIENCE_SECONDS


def next_step(seen: Seen, record: RunRecord, errors: ErrorsWork, me: Me) -> Step:
    """What to do for the run of that record."""
    run = seen.runs.get(record.number, RunSeen())
    over = _over(run, seen, record, errors)
    if over is not None:
        return over
    if record.mode == "overwrite" and not run.swept:
        return Sweep()
    unsettled = sorted(run.parts - run.commits.keys())
    if unsettled:
        return Settle(unsettled[0])
    todo = [shard for shard in range(len(record.shards)) if shard not in run.parts]
    return _work(todo, run, me) if todo else Close()


def _over(run: RunSeen, seen: Seen, record: RunRecord, errors: ErrorsWork) -> Finish | Refuse | None:
    if run.closed:
        return Finish(record.number, already=False)
    return overtaken(seen, record.number) or over_budget(run.errors, record.total_rows, errors)


def overtaken(seen: Seen, number: int) -> Refuse | None:
    """Whether a run with `mode: overwrite` began after the one of that number."""
    if seen.latest <= number:
        return None
    message = f"run {seen.latest} of another job took over the output from run {number}"
    return Refuse(Reason.OUTPUT_OVERTAKEN, message)


def _work(todo: list[int], run: RunSeen, me: Me) -> Step:
    """A shard that nobody has begun, else one whose runner seems to have ended, else wait."""
    free = [shard for shard in todo if shard not in me.busy]
    turn = me.start % len(free) if free else 0
    free = [*free[turn:], *free[:turn]]
    fresh = next((shard for shard in free if not run.attempts.get(shard)), None)
    if fresh is not None:
        return Try(fresh, 1)
    due = me.now + me.patience_seconds
    for shard in free:
        count = run.attempts[shard]
        when = me.since.get((shard, count), me.now) + me.patience_seconds
        if shard in me.abandoned or when <= me.now:
            if count >= MOST_ATTEMPTS:
                return Refuse(
                    Reason.SHARD_FAILED,
                    f"shard {shard} was begun {count} times and never finished: its rows end every runner; "
                    "'modelyard logs' shows their last words",
                )
            return Try(shard, count + 1)
        due = min(due, when)
    return Wait(min(max(due - me.now, 0.1), 1.0))


def over_budget(found: int, total_rows: int, errors: ErrorsWork) -> Refuse | None:
    """Whether so many rows that could not be scored are too many."""
    if errors.on_error == "fail" and found:
        return Refuse(Reason.ROW_FAILED, "a row could not be scored, and errors.onError is fail")
    if errors.max_rows is not None and found > errors.max_rows:
        message = f"{found:,} rows could not be scored, errors.maxRows is {errors.max_rows:,}"
        return Refuse(Reason.ERROR_BUDGET_EXCEEDED, message)
    if errors.max_percent is not None and found * 100 > errors.max_percent * total_rows:
        message = f"{found:,} of {total_rows:,} rows could not be scored, errors.maxPercent is {errors.max_percent}"
        return Refuse(Reason.ERROR_BUDGET_EXCEEDED, message)
    return None


@dataclass(frozen=True, slots=True)
class Draft:
    """`drafts/...json`: what an attempt was about to commit."""

    attempt: str
    rows: int
    errors: int
    sha256: str


def winner(drafts: tuple[Draft, ...], sha256: str) -> Commit | None:
    """Whose part it is, by the hash of its content. None: nobody's, so it was changed by somebody else."""
    # Of two equal ones either may be it: the first by name, so that everybody says the same.
    for draft in sorted(drafts, key=lambda each: each.attempt):
        if draft.sha256 == sha256:
            return Commit(draft.rows, draft.errors, draft.attempt)
    return None
