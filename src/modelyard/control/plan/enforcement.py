"""The condition Enforced: which declared limits a place does not enforce."""

from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.observed import Capabilities
from modelyard.control.ir.unit import Resources


def enforced(resources: Resources, capabilities: Capabilities, without: tuple[str, ...] = ()) -> tuple[Condition, ...]:
    """None where nothing is declared. without: paths of further fields that are declared and have no effect here."""
    limits = {"cpu": resources.cpu_limit_millis, "memory": resources.memory_limit_bytes}
    declared = [name for name, value in limits.items() if value]
    if not declared and not without:
        return ()
    missing = [name for name in declared if name not in capabilities.enforces]
    paths = [*(f"spec.resources.limits.{name}" for name in missing), *without]
    if not paths:
        return (Condition(type="Enforced", status=Status.TRUE, reason=Reason.ENFORCED),)
    hint = "; cpu sets the number of inference threads" if "cpu" in missing else ""
    return (
        Condition(
            type="Enforced",
            status=Status.FALSE,
            reason=Reason.NOT_ENFORCED,
            message=f"not enforced in this place: {', '.join(paths)}{hint}",
        ),
    )
