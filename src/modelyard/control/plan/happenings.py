"""What happened to replicas and members of tasks between two looks, as events for `kubectl describe`."""

from modelyard.base.conditions import Reason
from modelyard.control.ir.observed import Observed, ObservedMember, ObservedReplica, ReplicaState
from modelyard.control.plan.views import Event


def happenings(before: Observed, after: Observed) -> tuple[Event, ...]:
    """Replicas that became ready, got into trouble or ended as asked; members of tasks that got into trouble."""
    old, new = _members(before), _members(after)
    events = [event for name in sorted(new) if (event := _change(old.get(name), new[name]))]
    ended = [name for name in sorted(old.keys() - new.keys()) if old[name].state is ReplicaState.DRAINING]
    stops = [Event(type="Normal", reason=Reason.STOPPED, message=f"{name} ended as asked") for name in ended]
    return (*events, *stops, *_troubles(before, after))


def _troubles(before: Observed, after: Observed) -> tuple[Event, ...]:
    old, new = _crew(before), _crew(after)
    return tuple(
        Event(
            type="Normal" if trouble.reason == Reason.PREEMPTED else "Warning",
            reason=trouble.reason,
            message=f"{name}: {trouble.message}",
        )
        for name, member in sorted(new.items())
        if (trouble := member.trouble) is not None and (name not in old or old[name].trouble != trouble)
    )


def _change(old: ObservedReplica | None, new: ObservedReplica) -> Event | None:
    if new.trouble and (old is None or old.trouble != new.trouble):
        return Event(type="Warning", reason=new.trouble.reason, message=f"{new.name}: {new.trouble.message}")
    became_ready = new.state is ReplicaState.READY and (old is None or old.state is not ReplicaState.READY)
    if became_ready or (old is not None and new.pid != old.pid and new.state is ReplicaState.READY):
        return Event(type="Normal", reason=Reason.STARTED, message=f"{new.name} is ready")
    return None


def _members(observed: Observed) -> dict[str, ObservedReplica]:
    return {member.name: member for each in observed.units for member in each.members}


def _crew(observed: Observed) -> dict[str, ObservedMember]:
    return {member.name: member for each in observed.tasks for member in each.members}
