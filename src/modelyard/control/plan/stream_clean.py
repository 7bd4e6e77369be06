"""A ModelStream that is being deleted: its runners end, a task removes what it left at its broker, and it goes.

What cannot be removed within about two minutes stays, and an event says so: a broker that is gone must not keep an
object for ever. One that has committed nothing leaves nothing, and goes sooner: its manifest was wrong.
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from modelyard.api import fields
from modelyard.base import clock
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir import names
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import ObservedTask
from modelyard.control.ir.pod import PLAIN, Pod
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Credential, Unit
from modelyard.control.plan import status, stream_work
from modelyard.control.plan.model import pause
from modelyard.control.plan.stream_conditions import known
from modelyard.control.plan.views import Event, GoingStreamView, Outcome
from modelyard.wire.report import Failure
from modelyard.wire.work import CleanWork, ModelWork, StreamWork, WorkSpec

__all__ = ["desire"]

_ENOUGH_SECONDS = 120.0
_ENOUGH_ATTEMPTS = 4
"""A server that was away all that time tries at least so often."""
_UNUSED_SECONDS = 2.0
"""For one that has committed nothing."""
_DEADLINE_SECONDS = 30.0
_CLEANED = "Cleaned"
_OF_RUNNERS = frozenset({"partitions", "lag", "recordsPerSecond", "latencyMilliseconds", "counted"})
_UNDER_WAY = "what it left at its broker is being removed"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Left:
    """What must be removed, and the keys to it."""

    work: StreamWork
    credentials: tuple[Credential, ...]
    pod: Pod = PLAIN


def desire(view: GoingStreamView, now: float) -> Outcome:
    """The next step. Whatever is not named in the outcome is ended by that."""
    if names.FINALIZER_CLEAN not in view.stored["metadata"].get("finalizers", ()):
        return Outcome()
    if view.observed.units:
        return Outcome()  # a runner that still works would write what is being removed
    left = _left(view)
    if left is None:
        return Outcome(held=False)
    task = _latest(view)
    if task is None or task.finished_at is None:
        return _trying(view, left, task, now)
    if task.report is not None and task.report.clean is not None and task.report.clean.done:
        told = Event(type="Normal", reason=Reason.CLEANED, message="its offsets and claims were removed")
        return Outcome(desired=Desired(kept=(task.name,)), events=(told,), held=False)
    return _failed(view, left, task, now)


def _left(view: GoingStreamView) -> _Left | None:
    """None where nothing was ever recorded, so that nothing ever ran.

    Revisions may be collected before their owner is gone: then the spec tells the same, since it could not change.
    """
    newest = max(view.revisions, key=lambda each: each.number, default=None)
    if newest is not None and newest.unit.work.stream is not None:
        return _recorded(newest.unit, newest.unit.work.stream)
    stream = view.stream
    if stream is None or stream.status.latest_created_revision is None:
        return None
    digest = stream.status.digest or ""
    model = ModelWork(name=stream.metadata.name, digest=digest, format="")
    work = stream_work.stream_work(stream, stream.status.latest_created_revision, model, 1)
    return _Left(work=work, credentials=stream_work.keys(stream))


def _recorded(unit: Unit, work: StreamWork) -> _Left:
    """Without its model, which nobody fetches for this."""
    return _Left(
        work=msgspec.structs.replace(work, model=msgspec.structs.replace(work.model, uri="")),
        credentials=tuple(each for each in unit.credentials if each.role != "model"),
        pod=unit.pod,
    )


def _latest(view: GoingStreamView) -> ObservedTask | None:
    uid = view.stored["metadata"].get("uid", "")
    mine = (each for each in view.observed.tasks if each.name == names.clean_task(view.key, uid, each.attempt))
    return max(mine, key=lambda each: each.attempt, default=None)


def _task(view: GoingStreamView, left: _Left, attempt: int) -> Task:
    return Task(
        name=names.clean_task(view.key, view.stored["metadata"].get("uid", ""), attempt),
        owner=view.key,
        work=WorkSpec(clean=CleanWork(stream=left.work)),
        attempt=attempt,
        deadline_seconds=_DEADLINE_SECONDS,
        credentials=left.credentials,
        pod=left.pod,
    )


def _trying(view: GoingStreamView, left: _Left, task: ObservedTask | None, now: float) -> Outcome:
    """While a failed attempt is repeated, its failure stays the news: statuses must not flap."""
    attempt, reason, message = task.attempt if task else 1, Reason.CLEANING, _UNDER_WAY
    before = next((each for each in _previous(view) or () if each.type == _CLEANED), None)
    if attempt > 1 and before is not None:
        reason, message = known(before.reason), before.message
    return _outcome(view, _not_yet(reason, message), now, _task(view, left, attempt))


def _failed(view: GoingStreamView, left: _Left, task: ObservedTask, now: float) -> Outcome:
    """Again after a pause, or never."""
    failure = (task.report.failure if task.report else None) or Failure(
        reason=Reason.CLEAN_FAILED, message=task.message or "removing it ended without a report"
    )
    if _enough(view, task, now):
        return Outcome(desired=Desired(kept=(task.name,)), events=(_given_up(view, left.work, failure),), held=False)
    due = (task.finished_at or now) + pause(task.attempt)
    attempt = task.attempt if now < due else task.attempt + 1
    found = _not_yet(known(failure.reason), failure.message)
    return replace(_outcome(view, found, now, _task(view, left, attempt)), wake_at=due if now < due else None)


def _has_begun(view: GoingStreamView) -> bool:
    """As far as anybody knows."""
    return view.stream is None or any(each.committed is not None for each in view.stream.status.partitions or ())


def _enough(view: GoingStreamView, task: ObservedTask, now: float) -> bool:
    if not _has_begun(view):
        return now - _since(view, now) >= _UNUSED_SECONDS
    return task.attempt >= _ENOUGH_ATTEMPTS and now - _since(view, now) >= _ENOUGH_SECONDS


def _not_yet(reason: Reason, message: str) -> Condition:
    return Condition(type=_CLEANED, status=Status.FALSE, reason=reason, message=message)


def _since(view: GoingStreamView, now: float) -> float:
    """When the deletion was asked for."""
    asked = view.stored["metadata"].get("deletionTimestamp")
    return clock.seconds_since_epoch(asked) if asked else now


def _given_up(view: GoingStreamView, work: StreamWork, failure: Failure) -> Event:
    if not _has_begun(view):
        message = f"given up: {failure.message.rstrip('.')}; as far as is known it has committed nothing there"
        return Event(type="Warning", reason=Reason.CLEAN_FAILED, message=message)
    place = f"in stream {work.sink.stream} at {work.sink.uri}" if work.sink.stream else f"at {work.source.uri}"
    message = (
        f"given up: {failure.message.rstrip('.')}; offsets, claims and consumers of {work.name} may be left {place}, "
        "and a stream of the same name would go on from them"
    )
    return Event(type="Warning", reason=Reason.CLEAN_FAILED, message=message)


def _at_rest(stored: dict[str, Any]) -> dict[str, Any]:
    """What stays true when nothing runs any more."""
    partitions = [
        {name: value for name, value in each.items() if name not in ("lag", "runner", "freeSince")}
        for each in stored.get("partitions") or ()
        if "committed" in each
    ]
    kept = {name: value for name, value in stored.items() if name not in _OF_RUNNERS}
    return {**kept, "replicas": 0, "readyReplicas": 0, **({"partitions": partitions} if partitions else {})}


def _previous(view: GoingStreamView) -> fields.Conditions | None:
    return view.stream.status.conditions if view.stream else None


def _outcome(view: GoingStreamView, found: Condition, now: float, task: Task) -> Outcome:
    """The stored status with what is so now; of an object that cannot be read the status is left alone."""
    previous = _previous(view)
    told = None
    if view.stream is not None:
        ready = msgspec.structs.replace(found, type="Ready")
        stamped = status.conditions((ready, found), previous, view.stream.metadata.generation, now)
        told = {**_at_rest(view.stored.get("status") or {}), "conditions": stamped}
    return Outcome(desired=Desired(tasks=(task,)), status=told, events=status.events((found,), previous))
