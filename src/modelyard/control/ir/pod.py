"""Pod: what only Kubernetes does with the processes of a unit or task. Other drivers leave it alone."""

from typing import Any

import msgspec

from modelyard.control.ir.values import Value


class Pod(Value, frozen=True, kw_only=True):
    """How the pods of a unit or task differ from ours.

    service_account: under which they run, "": the namespace's default; no token of it is mounted. overlay: the
    declared `podTemplate`, checked by `plan.pod_template`, merged over ours. image: of the user's program or worker,
    "" for ours. queue: of Kueue.
    """

    service_account: str = ""
    overlay: dict[str, Any] = msgspec.field(default_factory=dict)
    image: str = ""
    queue: str = ""


PLAIN = Pod()
