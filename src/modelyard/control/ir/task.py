"""Task: processes that run to their end and leave a Report. On Kubernetes a Job."""

from modelyard.control.ir.pod import PLAIN, Pod
from modelyard.control.ir.unit import Credential, Resources, Variable
from modelyard.control.ir.values import Key, Value
from modelyard.wire.work import WorkSpec


class Task(Value, frozen=True, kw_only=True):
    """name: unique for what is asked and the attempt, so that a new attempt is a new task. attempt counts from 1.

    deadline_seconds: after which it has failed; 0: none. grace_seconds: between SIGTERM and SIGKILL of a member.

    parallelism: how many identical members run at once. Without `restart` (one member) any end is the task's end. With
    it, a member that fails is started again with growing pauses and counted, until whoever planned the task forgets it;
    a failure that its report calls final ends the task. It is done when one member has ended well, and the others are
    then ended; with `gang` when all have, and there any member's failure replaces all of them together.

    priority: room is taken from members of lower priority, which are ended gracefully and wait; 0 is a job's usual one.
    """

    name: str
    owner: Key
    work: WorkSpec
    attempt: int = 1
    deadline_seconds: float = 600.0
    grace_seconds: float = 0.0
    parallelism: int = 1
    restart: bool = False
    gang: bool = False
    priority: int = 0
    resources: Resources = Resources()
    variables: tuple[Variable, ...] = ()
    credentials: tuple[Credential, ...] = ()
    pod: Pod = PLAIN
