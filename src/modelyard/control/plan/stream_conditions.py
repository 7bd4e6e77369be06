"""What to say about a stream: one condition for each thing that can go wrong, `Ready` first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.api.model import Model
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.observed import ObservedReplica, ReplicaState
from modelyard.control.plan import pods
from modelyard.control.plan.enforcement import enforced
from modelyard.control.plan.model_ready import model_ready
from modelyard.control.plan.rollout import Rollout, ready_replicas
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.stream_report import Told, holdings, problem
from modelyard.control.plan.views import StreamView


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """A stream with what was decided about it.

    refusal: why no revision can be made now; model: what it would be made from otherwise. new_revision: one is being
    recorded. replicas: that shall run. told: what runners say. body: the status without conditions. moving: partitions
    between two runners.
    """

    view: StreamView
    refusal: Refusal | None
    model: Model | None
    rollout: Rollout
    new_revision: bool
    replicas: int
    told: tuple[Told, ...]
    body: Mapping[str, Any]
    moving: frozenset[int] = frozenset()


def conditions(situation: Situation) -> tuple[Condition, ...]:
    """Ready: every partition is scored by ready runners of the declared spec. Connected: they reach source and sink."""
    return (
        _ready(situation),
        _connected(situation),
        _model_ready(situation),
        _suspended(situation),
        *_expired(situation),
        *_enforced(situation),
    )


def _enforced(situation: Situation) -> tuple[Condition, ...]:
    view, target = situation.view, situation.rollout.target
    if target is None:
        return ()
    without = pods.without_effect(view.stream.spec, view.capabilities)
    return enforced(target.unit.resources, view.capabilities, without)


def _ready(situation: Situation) -> Condition:
    found = _paused(situation) or _problem(situation)
    if found is not None:
        return Condition(type="Ready", status=Status.FALSE, reason=found.reason, message=found.message)
    return Condition(type="Ready", status=Status.TRUE, reason=Reason.FOLLOWING, message=_progress(situation))


def _paused(situation: Situation) -> Refusal | None:
    if situation.replicas:
        return None
    stays = "offsets stay, and scoring goes on from there when"
    if situation.view.stream.spec.suspend:
        return Refusal(reason=Reason.SUSPENDED, message=f"suspend is true; {stays} it is false again")
    return Refusal(reason=Reason.SCALED_TO_ZERO, message=f"replicas is 0; {stays} it is 1 or more")


def _problem(situation: Situation) -> Refusal | None:
    """The most telling reason for not being ready: what is missing, what fails, then what is still under way."""
    refusal, target = situation.refusal, situation.rollout.target
    meanwhile = _meanwhile(situation)
    if refusal is not None:
        return Refusal(reason=refusal.reason, message=refusal.message + meanwhile)
    if target is None or situation.new_revision:
        return Refusal(reason=Reason.PROGRESSING, message="a new revision is being recorded" + meanwhile)
    mine = [each for each in situation.told if each.unit == target.unit.name]
    ready = ready_replicas(situation.view.observed, target.unit.name)
    counted = f"{target.name}: {ready} of {situation.replicas} runners ready" if ready < situation.replicas else ""
    failing = _failing(mine) or (_trouble(situation) if counted else None)
    if failing is not None:
        lead = f"{counted}: " if counted else ""
        return Refusal(reason=failing.reason, message=f"{lead}{failing.message}{meanwhile}")
    if counted:
        return Refusal(reason=Reason.STARTING, message=counted + meanwhile)
    return _apart(mine) or _left(situation, target.unit.name)


def _failing(told: Iterable[Told]) -> Refusal | None:
    """What keeps runners from working, in their own words."""
    found = problem(told)
    return Refusal(reason=known(found[1].reason), message=found[1].message) if found else None


def _trouble(situation: Situation) -> Refusal | None:
    """The latest trouble of the newest revision's runners."""
    target, units = situation.rollout.target, situation.view.observed.units
    members = [member for each in units if target and each.unit.name == target.unit.name for member in each.members]
    troubles = [each.trouble for each in members if each.trouble and not _is_ready(each)]
    latest = max(troubles, key=lambda each: each.since, default=None)
    return Refusal(reason=known(latest.reason), message=latest.message) if latest else None


def _apart(told: Iterable[Told]) -> Refusal | None:
    alone = [each.runner for each in told if _works(each) and not each.report.connected]
    if not alone:
        return None
    return Refusal(
        reason=Reason.BROKER_UNREACHABLE,
        message=f"{', '.join(alone)} {'has' if len(alone) == 1 else 'have'} no connection to source and sink",
    )


def _works(told: Told) -> bool:
    """One that still starts has not been heard of yet."""
    return not told.leaves and (told.report.ready or told.report.problem is not None)


def _left(situation: Situation, unit: str) -> Refusal | None:
    """Partitions that nobody scores yet, or that an older revision still does."""
    count, held = situation.view.stream.spec.partitions, holdings(situation.told)
    waiting = [number for number in range(count) if number not in held and number not in situation.moving]
    if waiting:
        return Refusal(
            reason=Reason.PARTITIONS_WAITING, message=f"{_listed(waiting, count)} no runner yet; one takes over soon"
        )
    older = sorted({holding.told.unit.partition(".")[0] for holding in held.values() if holding.told.unit != unit})
    if older:
        kept = sum(holding.told.unit != unit for holding in held.values())
        message = f"{kept} of {count} partitions {'is' if kept == 1 else 'are'} still with {', '.join(older)}"
        return Refusal(reason=Reason.PROGRESSING, message=message)
    before = [number for number, holding in sorted(held.items()) if holding.partition.committed is None]
    if before:
        message = f"{_listed(before, count)} not begun yet: where to start is being found out"
        return Refusal(reason=Reason.PARTITIONS_WAITING, message=message)
    return None


def _listed(numbers: list[int], count: int) -> str:
    if count == 1:
        return "the one partition has"
    text = ", ".join(map(str, numbers))
    return f"partition {text} (of 0 to {count - 1}) has" if len(numbers) == 1 else f"partitions {text} have"


def _meanwhile(situation: Situation) -> str:
    carrier, target = situation.rollout.traffic, situation.rollout.target
    if carrier is None or (carrier is target and situation.refusal is None and not situation.new_revision):
        return ""
    return f"; {carrier.name} goes on scoring"


def _progress(situation: Situation) -> str:
    body, count = situation.body, situation.view.stream.spec.partitions
    lag, rate, latency = body.get("lag"), body.get("recordsPerSecond") or 0, body.get("latencyMilliseconds")
    parts = [f"{count} partition{'s' if count > 1 else ''}"]
    parts += [f"{len(situation.moving)} between two runners"] if situation.moving else []
    parts += [] if lag is None else [f"{lag:,} message{'' if lag == 1 else 's'} waiting"]
    parts.append(f"{rate:,} records/s")
    parts += [] if latency is None else [f"{latency:,} ms from arrival to commit"]
    return ", ".join(parts)


def _connected(situation: Situation) -> Condition:
    paused = _paused(situation)
    runners = [each for each in situation.told if _works(each)]
    if paused is not None or not runners:
        reason = paused.reason if paused else Reason.STARTING
        return Condition(type="Connected", status=Status.UNKNOWN, reason=reason, message="no runner says so")
    apart = [each for each in runners if not each.report.connected]
    if not apart:
        return Condition(type="Connected", status=Status.TRUE, reason=Reason.CONNECTED)
    found = _failing(apart) or _apart(apart)
    assert found is not None
    return Condition(type="Connected", status=Status.FALSE, reason=found.reason, message=found.message)


_ITS_OWN = frozenset({Reason.INVALID, Reason.UNSUPPORTED, Reason.OVERLAY_FORBIDDEN})


def _model_ready(situation: Situation) -> Condition:
    """Where the stream itself is wrong the model is not what matters."""
    refusal = situation.refusal
    if refusal is not None and refusal.reason in _ITS_OWN:
        return Condition(type="ModelReady", status=Status.UNKNOWN, reason=refusal.reason)
    return model_ready(refusal, situation.model)


def _suspended(situation: Situation) -> Condition:
    paused = _paused(situation)
    if paused is None:
        return Condition(type="Suspended", status=Status.FALSE, reason=Reason.NOT_SUSPENDED)
    return Condition(type="Suspended", status=Status.TRUE, reason=paused.reason, message=paused.message)


def _expired(situation: Situation) -> tuple[Condition, ...]:
    """Lost for good, so it is told for good."""
    count = situation.body.get("expired") or 0
    if not count:
        return ()
    one = count == 1
    message = (
        f"{count:,} message{'' if one else 's'} left the source before {'it was' if one else 'they were'} read; let it "
        "keep them longer, or score faster"
    )
    return (Condition(type="RecordsExpired", status=Status.TRUE, reason=Reason.RECORDS_EXPIRED, message=message),)


def _is_ready(member: ObservedReplica) -> bool:
    return member.state is ReplicaState.READY


def known(word: str) -> Reason:
    """Reports are not trusted: an unknown reason becomes a known one."""
    return Reason(word) if word in Reason.__members__.values() else Reason.CRASHED
