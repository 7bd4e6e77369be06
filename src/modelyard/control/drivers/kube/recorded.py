"""The pod templates that were recorded with revisions."""

from collections.abc import Callable, Mapping
from typing import Any

from modelyard.base.errors import UserError
from modelyard.control.ir import names
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.render import kube

Object = dict[str, Any]


def templates(revisions: Mapping[tuple[str, str], Object]) -> Callable[[Unit | Task], Object | None]:
    """revisions: stored ControllerRevisions by namespace and name, as a reflector keeps them.

    None for what is not recorded: tasks that run once, and what a release recorded that had no pods.
    """

    def recorded(what: Unit | Task) -> Object | None:
        name = what.revision if isinstance(what, Unit) else names.job_revision(what.owner.name)
        stored = revisions.get((what.owner.namespace, name))
        if stored is None:
            return None
        try:
            revision = kube.revision(stored)
        except UserError:
            return None
        # An earlier owner of the same name may have left one, which is going.
        same = (revision.unit if isinstance(revision, Revision) else revision.task) == what
        return kube.pod_template(stored) if same else None

    return recorded
