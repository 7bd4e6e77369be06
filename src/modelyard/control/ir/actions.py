"""Actions: what `plan.diff` tells a driver to do. Imperatives; each is idempotent."""

from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key, Value


class Start(Value, frozen=True, kw_only=True, tag="Start"):
    """Run so many replicas of a unit that does not run yet. begun: as in `DesiredUnit`."""

    unit: Unit
    replicas: int
    begun: tuple[int, ...] = ()


class Resize(Value, frozen=True, kw_only=True, tag="Resize"):
    """Change the number of replicas; those that leave are drained. begun: as in `DesiredUnit`."""

    unit: str
    owner: Key
    replicas: int
    begun: tuple[int, ...] = ()


class Stop(Value, frozen=True, kw_only=True, tag="Stop"):
    """Drain and end all replicas of a unit, then forget it."""

    unit: str
    owner: Key


class Run(Value, frozen=True, kw_only=True, tag="Run"):
    """Run a task once."""

    task: Task


class Adjust(Value, frozen=True, kw_only=True, tag="Adjust"):
    """Change how many members of a task run at once; those that leave finish or drop what they do."""

    task: str
    owner: Key
    parallelism: int


class Forget(Value, frozen=True, kw_only=True, tag="Forget"):
    """End a task if it still runs, its members with SIGTERM and their grace, and forget its result."""

    task: str
    owner: Key


Action = Start | Resize | Stop | Run | Adjust | Forget
