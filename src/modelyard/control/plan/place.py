"""Which unit hosts a revision. Today each revision has a unit of its own; dense placement will change only this."""

from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import DesiredUnit


def place(revision: Revision, replicas: int) -> DesiredUnit:
    """The recorded unit, never a recomputed one: so an upgrade of Modelyard changes no running process."""
    return DesiredUnit(unit=revision.unit, replicas=replicas)
