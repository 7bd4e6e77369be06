"""What a runner does next with one partition. Pure: `(state, event) -> (state, instructions)`; time is an argument.

The promise rests on the commit alone: outputs, dead letters and the offset become visible together, and only if
nobody else has committed since the offset was read (the fence). Whoever does not know how a commit ended reads the
offset again and goes on from there. Claims only keep runners from doing the same work; a wrong one costs time and no
record.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from modelyard.base.conditions import Reason
from modelyard.runtime.streams.port import Busy, Committed, Fenced, Outcome, Unknown
from modelyard.runtime.streams.records import Group, Offset

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
REFUSED_PAUSE_SECONDS = 5.0
"""What somebody must change is looked at again after so long, at first."""
LONGEST_REFUSED_PAUSE_SECONDS = 30.0


class Phase(StrEnum):
    """AWAY: not ours. RECOVERING: the offset is read. BEGINNING: the first offset is committed. FOLLOWING: records are
    read and scored. COMMITTING: a group is. PAUSING: until `due`, then from the offset again."""

    AWAY = "Away"
    RECOVERING = "Recovering"
    BEGINNING = "Beginning"
    FOLLOWING = "Following"
    COMMITTING = "Committing"
    PAUSING = "Pausing"


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a partition from going on. reason: a `base.conditions.Reason`."""

    reason: Reason
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Of one partition.

    begun: something was committed once, as far as anybody told. offset: the committed one, when it is known. group:
    what is being committed. leaving: to be given back as soon as no commit is under way. failures: in a row.
    """

    phase: Phase = Phase.AWAY
    begun: bool = False
    offset: Offset | None = None
    group: Group | None = None
    leaving: bool = False
    due: float = 0.0
    failures: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The partition was claimed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Somebody else may have claimed it."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Give it back: others shall have it, or this process ends."""


@dataclass(frozen=True, slots=True)
class Found:
    """The committed offset; None: there is none."""

    offset: Offset | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A group that follows the offset is ready."""

    group: Group


@dataclass(frozen=True, slots=True)
class Ended:
    """Of a commit, or of the first one."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Broke:
    """Something may work later. reason, message: for the report."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Something works only when somebody changes something."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Due:
    """The pause is over."""


Event = Taken | Lost | Leave | Found | Scored | Ended | Broke | Forbidden | Due


@dataclass(frozen=True, slots=True)
class Recover:
    """Read the offset; answered by Found."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Commit the first offset; answered by Ended."""


@dataclass(frozen=True, slots=True)
class Read:
    """Read and score what comes after it, answered by Scored again and again, until Drop."""

    offset: Offset


@dataclass(frozen=True, slots=True)
class Commit:
    """Answered by Ended. after_seconds: of pause."""

    offset: Offset
    group: Group
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget everything that was read and is not committed."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Until the state's `due`; answered by Due."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Release the claim."""


Instruction = Recover | Begin | Read | Commit | Drop | Wait | GiveBack
Step = tuple[State, tuple[Instruction, ...]]


def step(state: State, event: Event, now: float) -> Step:
    """The next state and what to do. Events that do not belong to a phase change nothing: they came too late."""
    if state.phase is Phase.AWAY:
        taken = isinstance(event, Taken)
        return (replace(state, phase=Phase.RECOVERING, leaving=False), (Recover(),)) if taken else (state, ())
    return _interrupted(state, event, now) or _advanced(state, event, now) or (state, ())


def _interrupted(state: State, event: Event, now: float) -> Step | None:
    """What may come in any phase."""
    match event:
        case Lost():
            return _away(state), (Drop(),)
        case Leave():
            return _leave(state)
        case Broke(reason, message):
            return _pause(state, Problem(reason, message), now, first=FIRST_PAUSE_SECONDS, most=LONGEST_PAUSE_SECONDS)
        case Forbidden(reason, message):
            return _refuse(state, Problem(reason, message), now)
    return None


def _advanced(state: State, event: Event, now: float) -> Step | None:
    """What answers the instructions of a phase."""
    match event:
        case Due() if state.phase is Phase.PAUSING:
            return replace(state, phase=Phase.RECOVERING), (Recover(),)
        case Found(offset) if state.phase is Phase.RECOVERING:
            return _found(state, offset, now)
        case Scored(group) if state.phase is Phase.FOLLOWING and state.offset is not None:
            return replace(state, phase=Phase.COMMITTING, group=group), (Commit(state.offset, group),)
        case Ended(outcome) if state.phase in (Phase.BEGINNING, Phase.COMMITTING):
            return _ended(state, outcome)
    return None


def _away(state: State) -> State:
    return State(begun=state.begun, offset=state.offset)


def _leave(state: State) -> Step:
    """A commit under way is waited for: what it holds is done, and nobody has to do it again."""
    if state.phase is Phase.COMMITTING:
        return replace(state, leaving=True), ()
    return _away(state), (Drop(), GiveBack())


def _pause(state: State, problem: Problem, now: float, *, first: float, most: float) -> Step:
    if state.leaving:
        return _away(state), (Drop(), GiveBack())
    pause = min(first * 2.0 ** min(state.failures, 10), most)
    paused = replace(
        state, phase=Phase.PAUSING, group=None, due=now + pause, failures=state.failures + 1, problem=problem
    )
    return paused, (Drop(), Wait())


def _refuse(state: State, problem: Problem, now: float) -> Step:
    return _pause(state, problem, now, first=REFUSED_PAUSE_SECONDS, most=LONGEST_REFUSED_PAUSE_SECONDS)


def _found(state: State, offset: Offset | None, now: float) -> Step:
    if offset is not None:
        # What a record does to the stream is seen again only when it is read again.
        lasting = state.problem is not None and state.problem.reason is Reason.RECORD_FAILED
        problem = state.problem if lasting else None
        return replace(state, phase=Phase.FOLLOWING, offset=offset, begun=True, problem=problem), (Read(offset),)
    if state.begun:
        return _refuse(
            state,
            Problem(
                Reason.OFFSET_LOST,
                "the offset of this partition is gone from the sink, and beginning anew could score records twice; "
                "restore it, or delete this stream and apply one of another name with the start that you want",
            ),
            now,
        )
    return replace(state, phase=Phase.BEGINNING), (Begin(),)


def _ended(state: State, outcome: Outcome) -> Step:
    match outcome:
        case Committed(offset):
            done = replace(
                state, phase=Phase.FOLLOWING, offset=offset, group=None, begun=True, failures=0, problem=None
            )
            if state.leaving:
                return _away(done), (Drop(), GiveBack())
            return done, (Read(offset),) if state.phase is Phase.BEGINNING else ()
        case Busy(seconds, message, reason):
            return _busy(state, Problem(reason, message), seconds)
        case Fenced() | Unknown():
            if state.leaving:
                return _away(state), (Drop(), GiveBack())
            return replace(state, phase=Phase.RECOVERING, group=None), (Drop(), Recover())


def _busy(state: State, problem: Problem, seconds: float) -> Step:
    """Refused for certain, so the same group may be tried again."""
    if state.leaving:
        return _away(state), (Drop(), GiveBack())
    if state.group is None or state.offset is None:
        return replace(state, phase=Phase.RECOVERING, problem=problem), (Drop(), Recover())
    return replace(state, problem=problem), (Commit(state.offset, state.group, seconds),)
