"""Whose cloud identity a pod's containers have: the token that a cloud's webhook mounts goes where it is needed alone.

Sources: amazon-eks-pod-identity-webhook, "eks.amazonaws.com/skip-containers"; azure-workload-identity, "Labels and
Annotations".
"""

from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.wire.work import WorkSpec

MAIN, WORKER = "main", "worker"
"""Containers in which models are loaded."""
_CLOUDS = ("s3://", "gs://", "az://")
_AZURE = "az://"
_USE_AZURE = "azure.workload.identity/use"
_SKIP_AWS, _SKIP_AZURE = "eks.amazonaws.com/skip-containers", "azure.workload.identity/skip-containers"


def account_of_main(what: Unit | Task) -> str:
    """The ServiceAccount as which the container `main` opens stores; "": it opens none in a cloud."""
    return what.pod.service_account if _in_clouds(_own(what.work)) else ""


def account_of_fetch(what: Unit | Task) -> str:
    """The same for the container that comes first."""
    return what.pod.service_account if _in_clouds(artifacts(what.work)) else ""


def labels(what: Unit | Task) -> dict[str, str]:
    """Without which Azure's webhook passes a pod by."""
    uris = (*_own(what.work), *artifacts(what.work))
    wanted = what.pod.service_account and any(each.startswith(_AZURE) for each in uris)
    return {_USE_AZURE: "true"} if wanted else {}


def annotations(what: Unit | Task) -> dict[str, str]:
    """Which containers get no token: those that run models, unless the process that loads one reads and writes stores
    itself. Programs of jobs are their author's."""
    if not what.pod.service_account or what.work.run is not None or what.work.clean is not None:
        return {}
    without = [WORKER] if account_of_main(what) else [MAIN, WORKER]
    return {_SKIP_AWS: ",".join(without), _SKIP_AZURE: ";".join(without)}


def artifacts(work: WorkSpec) -> tuple[str, ...]:
    """Places that `runtime.fetch` reads."""
    if work.prepare is not None:
        return (work.prepare.uri,)
    if work.serve is not None:
        return tuple(each.uri for each in work.serve.models)
    scorer = work.score or work.stream
    return (scorer.model.uri,) if scorer is not None else ()


def _in_clouds(uris: tuple[str, ...]) -> bool:
    return any(each.startswith(_CLOUDS) for each in uris)


def _own(work: WorkSpec) -> tuple[str, ...]:
    """Places that the process itself reads and writes."""
    if work.score is not None:
        return (work.score.input.uri, work.score.output.uri)
    if work.stream is not None:
        return (work.stream.sink.uri,)
    if work.run is not None:
        output = work.run.output
        return (output.uri if output else "", work.run.checkpoint)
    return ()
