"""What pods have used, as they tell it themselves: summed over all of a workload, also over those that are gone."""

from collections.abc import Collection
from typing import NamedTuple

from modelyard.control.drivers import rules
from modelyard.control.ir.observed import Usage


class _Pod(NamedTuple):
    """restarts: of its container; latest: what that has used since it was started, before: what earlier ones had."""

    restarts: int = 0
    latest: Usage = Usage()
    before: Usage = Usage()


class Used:
    """Kept in memory: a leader knows of pods that were gone before it began only what Jobs have kept of them.

    Pods run code of others, so this is what they say, and no bill.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Usage] = {}
        """By uid of the workload."""
        self._pods: dict[str, dict[str, _Pod]] = {}
        self._gone: dict[str, Usage] = {}

    def tell(self, workload: str, pod: str, restarts: int, usage: Usage) -> None:
        """A container of a pod has used so much; both by uid. restarts: of the container before this one."""
        pods = self._pods.setdefault(workload, {})
        known = pods.get(pod, _Pod(restarts))
        if restarts < known.restarts:
            return
        before = known.before if restarts == known.restarts else rules.total((known.before, known.latest))
        pods[pod] = _Pod(restarts, usage, before)

    def add_up(self, workloads: Collection[str], pods: Collection[str]) -> None:
        """Exactly these are there; all by uid."""
        for workload in self._pods.keys() - set(workloads):
            del self._pods[workload]
            self._gone.pop(workload, None)
        for workload, known in self._pods.items():
            for uid in known.keys() - set(pods):
                self._gone[workload] = rules.total((self._gone.get(workload, Usage()), *known.pop(uid)[1:]))
        self.sums = {
            workload: rules.total(
                (self._gone.get(workload, Usage()), *(part for each in known.values() for part in each[1:]))
            )
            for workload, known in self._pods.items()
        }
