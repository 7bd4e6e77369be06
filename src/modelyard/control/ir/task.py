"""Task: one process that runs to its end and leaves a Report."""

from modelyard.control.ir.unit import Resources, Variable
from modelyard.control.ir.values import Key, Value
from modelyard.wire.work import WorkSpec


class Task(Value, frozen=True, kw_only=True):
    """name: unique for what is asked and the attempt, so that a new attempt is a new task. attempt counts from 1."""

    name: str
    owner: Key
    work: WorkSpec
    attempt: int = 1
    deadline_seconds: float = 600.0
    resources: Resources = Resources()
    variables: tuple[Variable, ...] = ()
