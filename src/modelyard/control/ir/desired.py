"""Desired: everything that must exist for one object."""

from modelyard.control.ir.revision import Recorded
from modelyard.control.ir.route import Route
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import DesiredUnit
from modelyard.control.ir.values import Value


class Desired(Value, frozen=True, kw_only=True):
    """units and tasks go to the driver, routes to the gateway, records to the API server.

    records: revisions to create if absent. obsolete: names of revisions to delete. kept: names of tasks that are
    left as they are, whatever they do.
    """

    units: tuple[DesiredUnit, ...] = ()
    tasks: tuple[Task, ...] = ()
    routes: tuple[Route, ...] = ()
    records: tuple[Recorded, ...] = ()
    obsolete: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
