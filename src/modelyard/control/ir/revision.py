"""Revision: what a ControllerRevision records, so that no later release of Modelyard changes what runs."""

from typing import Any

from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.ir.values import Key, Value


class Revision(Value, frozen=True, kw_only=True):
    """number counts from 1 within its owner. inputs: what the user declared, resolved; inputs_hash: of exactly that.

    A new revision is made when the hash differs from the newest one's; unit is what was planned from the inputs then.
    """

    name: str
    owner: Key
    number: int
    inputs_hash: str
    inputs: dict[str, Any]
    unit: Unit


class JobRevision(Value, frozen=True, kw_only=True):
    """The one revision of a job, recorded when it can start: a model that changes later changes nothing of it."""

    name: str
    owner: Key
    number: int = 1
    inputs_hash: str
    inputs: dict[str, Any]
    task: Task


Recorded = Revision | JobRevision
