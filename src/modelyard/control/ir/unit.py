"""Unit: a set of identical processes that hosts one or more models."""

from modelyard.control.ir.pod import PLAIN, Pod
from modelyard.control.ir.values import Key, Value
from modelyard.wire.work import WorkSpec


class SecretKey(Value, frozen=True, kw_only=True):
    """One value of a Secret in the owner's namespace. optional: absent is not an error."""

    secret: str
    key: str
    optional: bool = False


class Variable(Value, frozen=True, kw_only=True):
    """One environment variable of a process: a value, or a reference to a Secret (never the secret itself)."""

    name: str
    value: str = ""
    secret: SecretKey | None = None


class Credential(Value, frozen=True, kw_only=True):
    """A Secret of the owner's namespace whose keys a process gets as files, in a folder named after the role.

    role: `model`, `input` or `output`: what the keys open.
    """

    role: str
    secret: str


class Resources(Value, frozen=True, kw_only=True):
    """What one replica asks for and may use; 0 means not declared. CPU in thousandths of a core, memory in bytes.

    gpus: of all kinds. devices: what else is counted, GPUs by their full names included, such as `nvidia.com/gpu`.
    claims: names of entries of the pod's resource claims.
    """

    cpu_request_millis: int = 0
    cpu_limit_millis: int = 0
    memory_request_bytes: int = 0
    memory_limit_bytes: int = 0
    gpus: int = 0
    devices: tuple[tuple[str, int], ...] = ()
    claims: tuple[str, ...] = ()


class Unit(Value, frozen=True, kw_only=True):
    """What each of the identical processes is. Recorded in a revision; drivers apply the recorded value.

    name: the driver's key, from `names.unit`. revision: the name of the ControllerRevision that records it.
    startup_timeout_seconds: not ready by then is a failed start. drain_seconds: between SIGTERM and SIGKILL.
    credentials: of the stores and brokers that the processes use themselves.
    """

    name: str
    owner: Key
    revision: str
    work: WorkSpec
    variables: tuple[Variable, ...] = ()
    credentials: tuple[Credential, ...] = ()
    resources: Resources = Resources()
    startup_timeout_seconds: float = 60.0
    drain_seconds: float = 30.0
    pod: Pod = PLAIN


class DesiredUnit(Value, frozen=True, kw_only=True):
    """A unit and how many replicas of it must run.

    begun: what a stream's processes that start from now on must know beyond their recorded work: see `StreamWork`.
    """

    unit: Unit
    replicas: int
    begun: tuple[int, ...] = ()
