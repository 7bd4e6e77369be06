"""What drivers and gateways saw. Facts only; every judgement is made in `plan`."""

from enum import StrEnum

from modelyard.control.ir.route import Route
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key, Value
from modelyard.wire.report import Report


class ReplicaState(StrEnum):
    """PENDING: not started (no room, or back-off). DRAINING: asked to stop, finishing requests in flight."""

    PENDING = "Pending"
    STARTING = "Starting"
    READY = "Ready"
    DRAINING = "Draining"


class Usage(Value, frozen=True, kw_only=True):
    """Cumulative since the unit was first started, over all its replicas, the ended ones included."""

    cpu_seconds: float = 0.0
    memory_byte_seconds: float = 0.0
    gpu_seconds: float = 0.0


class Trouble(Value, frozen=True, kw_only=True):
    """The latest thing that went wrong with a replica, kept until it is ready again.

    reason: a `base.conditions.Reason`; message: what failed, with the last lines of its log. since: seconds since 1970.
    """

    reason: str
    message: str
    since: float


class ObservedReplica(Value, frozen=True, kw_only=True):
    """One process of a unit. address: as in `Endpoints`, when it listens. restarts: ended by themselves so far.

    zone: of the cluster, where it listens; "" if not known.

    report: the latest while it runs; of who serves requests only one that tells of copies of requests.
    """

    name: str
    state: ReplicaState
    address: str = ""
    zone: str = ""
    pid: int = 0
    started_at: float = 0.0
    restarts: int = 0
    report: Report | None = None
    trouble: Trouble | None = None


class ObservedUnit(Value, frozen=True, kw_only=True):
    """replicas, begun: what was last asked for; members: what there is, draining ones included."""

    unit: Unit
    replicas: int
    begun: tuple[int, ...] = ()
    members: tuple[ObservedReplica, ...] = ()
    usage: Usage = Usage()


class MemberState(StrEnum):
    """PENDING: not started (no room, or back-off). ENDING: asked to stop. DONE: ended well."""

    PENDING = "Pending"
    RUNNING = "Running"
    ENDING = "Ending"
    DONE = "Done"


class ObservedMember(Value, frozen=True, kw_only=True):
    """One process of a task. report: its latest; trouble: the latest, kept while it is tried again."""

    name: str
    state: MemberState
    pid: int = 0
    report: Report | None = None
    trouble: Trouble | None = None


class ObservedTask(Value, frozen=True, kw_only=True):
    """A task that runs (finished_at is None) or has ended. The driver forgets it on `Forget`.

    report: what it left, if that was readable; message: why there is none, with the last lines of its log.
    started_at: when the driver took it over; failures: of its members since then (a gang counts once), without those
    that were asked to end, found no room, or made room for others. members: while it runs.
    """

    name: str
    owner: Key
    attempt: int = 1
    parallelism: int = 1
    started_at: float = 0.0
    members: tuple[ObservedMember, ...] = ()
    failures: int = 0
    usage: Usage = Usage()
    finished_at: float | None = None
    report: Report | None = None
    message: str = ""


class Observed(Value, frozen=True, kw_only=True):
    """Everything that a driver runs."""

    units: tuple[ObservedUnit, ...] = ()
    tasks: tuple[ObservedTask, ...] = ()


class ObservedRoute(Value, frozen=True, kw_only=True):
    """acknowledged: the route that is in force everywhere (None: none yet); rejected: why a newer one is not."""

    acknowledged: Route | None = None
    rejected: str = ""


class Load(Value, frozen=True, kw_only=True):
    """What a unit has to do, as the gateway counts it: copies of requests included, and what never reached a replica.

    in_flight: now; the totals go on over a restart of the proxy. answered: a status below 400; refused: 4xx; failed:
    5xx, the gateway's own 503 and 504 included. connect_failures and retries: of tries. requests_per_second and
    failures_per_second: lately; p50_seconds and p99_seconds: of the latest interval with requests, None after a minute
    without any. A call over gRPC counts by its HTTP status.
    """

    unit: str
    in_flight: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    connect_failures: int = 0
    retries: int = 0
    timeouts: int = 0
    requests_per_second: float = 0.0
    failures_per_second: float = 0.0
    p50_seconds: float | None = None
    p99_seconds: float | None = None

    @property
    def requests(self) -> int:
        """All that were answered in some way."""
        return self.answered + self.refused + self.failed


class Capabilities(Value, frozen=True, kw_only=True):
    """What a driver can do. enforces: the names of limits it enforces (`memory`, `cpu`). supports: what not all can do:
    `image` (programs from container images), `pod` (what a pod template says).

    `threads`: the CPU limit sets the number of inference threads, which every driver does. fetches: processes share
    neither a cache nor a folder of anybody's machine, so their work names where artifacts come from (`ModelWork.uri`),
    they get the keys for that (role `model`), and relative paths or `file://` mean nothing.
    """

    enforces: frozenset[str] = frozenset()
    supports: frozenset[str] = frozenset()
    fetches: bool = False
