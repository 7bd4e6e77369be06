"""Who leads: what to do about a Lease, decided from what was seen of it and when. No two clocks are compared.

Times are seconds of the own clock, which must go on while the process or the machine is suspended. A holder counts its
lease from when it began to ask for it; the others count from when they saw that. So of two clocks that run at speeds
within 3 % of the true one, the holder's ends first.

Source: k8s.io/client-go/tools/leaderelection.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

_LONGEST_SECONDS = 600.0
"""What a record may say about itself."""


class Timing(NamedTuple):
    """duration: how long the others wait after they saw the same record. held: how long a holder believes in it.

    renew: between renewals. deadline: a holder that could not renew for so long gives up. again: after a failure, and
    between two looks of those who wait.
    """

    duration: float = 15.0
    held: float = 14.0
    renew: float = 5.0
    deadline: float = 10.0
    again: float = 1.0


class Record(NamedTuple):
    """What the Lease says. holder: "" when it was released. version: another one after every write."""

    holder: str
    version: str
    duration: float = 15.0
    transitions: int = 0
    acquired: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """record: the last that was seen or written, None: there is none. since: when it was first seen.

    known: whether anything was seen, and nothing speaks against it. held_from: when the request began that made or kept
    us the holder; None: we are not. looked: when we last looked or asked.
    """

    me: str
    timing: Timing = Timing()
    record: Record | None = None
    known: bool = False
    since: float = 0.0
    looked: float = float("-inf")
    held_from: float | None = None


class Look(NamedTuple):
    """Read the Lease."""


class Write(NamedTuple):
    """Be the holder: create the Lease, or replace that version of it. takes: we were not before."""

    version: str | None
    transitions: int
    takes: bool


class Rest(NamedTuple):
    """Nothing to do for so many seconds."""

    seconds: float


class Lost(NamedTuple):
    """We led, and must not go on."""

    why: str


Step = Look | Write | Rest | Lost


def step(state: State, now: float) -> Step:
    """What comes next."""
    return _keep(state, state.held_from, now) if state.held_from is not None else _wait(state, now)


def saw(state: State, record: Record | None, now: float) -> State:
    """now: when the answer had arrived. Only another version begins a new wait."""
    same = state.record == record
    return replace(state, record=record, known=True, since=state.since if same else now, looked=now)


def wrote(state: State, record: Record, began: float) -> State:
    """We are the holder; began: when the request was about to be sent."""
    return replace(state, record=record, known=True, since=began, looked=began, held_from=began)


def doubted(state: State, now: float) -> State:
    """A request failed, or somebody else was first: look before anything else, after a moment."""
    return replace(state, known=False, looked=now)


def holds(state: State, now: float) -> bool:
    """Whether something may be written now. Strict: at the end it is over."""
    return state.held_from is not None and 0.0 <= now - state.held_from < state.timing.held


def _keep(state: State, held_from: float, now: float) -> Step:
    timing = state.timing
    if state.known and (state.record is None or state.record.holder != state.me):
        holder = state.record.holder if state.record else ""
        return Lost(f"{holder or 'nobody'} holds it now")
    if now - held_from >= timing.deadline:
        return Lost(f"it could not be renewed for {now - held_from:.1f} seconds")
    if not state.known:
        due = state.looked + timing.again
        return Rest(due - now) if now < due else Look()
    due = held_from + timing.renew
    return Rest(due - now) if now < due else _write(state, takes=False)


def _wait(state: State, now: float) -> Step:
    timing = state.timing
    due = state.looked + timing.again
    if not state.known:
        return Rest(due - now) if now < due else Look()
    if state.record is None or state.record.holder in ("", state.me):
        return _write(state, takes=True)
    if now - state.since >= max(timing.duration, min(state.record.duration, _LONGEST_SECONDS)):
        # What was seen must still be true: the version in the request says so.
        return _write(state, takes=True)
    return Rest(due - now) if now < due else Look()


def _write(state: State, *, takes: bool) -> Write:
    record = state.record
    if record is None:
        return Write(None, 0, takes)
    return Write(record.version, record.transitions + (1 if takes else 0), takes)
