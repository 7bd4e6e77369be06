"""Desired x observed -> actions."""

from modelyard.control.ir.actions import Action, Adjust, Forget, Resize, Run, Start, Stop
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Observed, ObservedUnit, ReplicaState
from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.task import Task


def diff(desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """What one owner's driver must do, in a stable order: what is new first, what ends last.

    A unit that runs something else under a wanted name (its service was deleted and made again) ends first; the wanted
    one is started when it is gone.
    """
    want = {each.unit.name: each for each in desired.units}
    have = {each.unit.name: each for each in observed.units}
    tasks = {task.name: task for task in desired.tasks}
    known = {task.name: task for task in observed.tasks}
    starts = [
        Start(unit=want[n].unit, replicas=want[n].replicas, begun=want[n].begun)
        for n in sorted(want.keys() - have.keys())
    ]
    runs = [Run(task=tasks[n]) for n in sorted(tasks.keys() - known.keys())]
    resizes = [
        Resize(unit=n, owner=want[n].unit.owner, replicas=want[n].replicas, begun=want[n].begun)
        for n in sorted(want.keys() & have.keys())
        if want[n].unit == have[n].unit and (want[n].replicas, want[n].begun) != (have[n].replicas, have[n].begun)
    ]
    adjusts = [
        Adjust(task=n, owner=tasks[n].owner, parallelism=tasks[n].parallelism)
        for n in sorted(tasks.keys() & known.keys())
        if _adjustable(tasks[n]) and known[n].finished_at is None and known[n].parallelism != tasks[n].parallelism
    ]
    stops = [
        Stop(unit=n, owner=have[n].unit.owner)
        for n in sorted(have.keys())
        if n not in want or want[n].unit != have[n].unit
    ]
    forgets = [Forget(task=n, owner=known[n].owner) for n in sorted(known.keys() - tasks.keys() - set(desired.kept))]
    return (*starts, *runs, *resizes, *adjusts, *stops, *forgets)


def _adjustable(task: Task) -> bool:
    """Whether its number of members may change while it runs."""
    return task.restart and not task.gang


def endpoints(observed: Observed) -> tuple[Endpoints, ...]:
    """Where requests may go: replicas that are ready and were not asked to stop."""
    return tuple(_endpoints(each) for each in observed.units if each.unit.work.serve is not None)


def _endpoints(observed: ObservedUnit) -> Endpoints:
    ready = sorted((m.address, m.zone) for m in observed.members if m.state is ReplicaState.READY and m.address)
    zones = tuple(zone for _, zone in ready)
    addresses = tuple(address for address, _ in ready)
    return Endpoints(unit=observed.unit.name, addresses=addresses, zones=zones if any(zones) else ())
