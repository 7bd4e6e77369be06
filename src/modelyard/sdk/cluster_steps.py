"""What to do about reasons that only a cluster gives, or about which there is something else to do on one. Pure."""

from collections.abc import Mapping

from modelyard.base.conditions import Reason

_PODS = "what Kubernetes says about the pods: kubectl describe pods -n {namespace} -l {label}={name}"
_CORRECT = "correct the manifest as said above, and apply it"
ONLY_THERE: Mapping[str, tuple[str, ...]] = {
    Reason.IMAGE_PULL_FAILED: (
        "see that the image is in the registry under that name, and that nodes reach it",
        "if the registry asks for a password: name a Secret in spec.podTemplate.spec.imagePullSecrets, and apply it",
        _PODS,
    ),
    Reason.OUT_OF_MEMORY: ("raise spec.resources.limits.memory, and apply it", "what it wrote: modelyard logs {name}"),
    Reason.QUOTA_EXCEEDED: (
        "ask for less in spec.resources or spec.replicas, and apply it",
        "or have the quota raised; what it allows: kubectl describe resourcequota -n {namespace}",
    ),
    Reason.POD_REFUSED: (
        "correct spec.podTemplate as the cluster's admission says above, and apply it",
        "or ask those who set that policy",
    ),
    Reason.OVERLAY_FORBIDDEN: (_CORRECT,),
    Reason.LOCAL_PATH: (
        "upload it: modelyard push PATH",
        "write the uri and digest that it prints into the manifest, and apply it",
    ),
}
_THERE: Mapping[str, tuple[str, ...]] = {
    Reason.UNSCHEDULABLE: (
        "ask for less in spec.resources, or choose other nodes in spec.podTemplate (nodeSelector, tolerations)",
        "or add a node that suits; what there is: kubectl describe nodes",
        _PODS,
    ),
    Reason.ENVIRONMENT_MISSING: (
        "name a Runtime whose worker has what is missing, or save the model as ONNX, then: modelyard refresh {name}",
    ),
    Reason.DISK_FULL: (
        "give the pods more room: another volume named cache in spec.podTemplate.spec.volumes, and apply it",
        _PODS,
    ),
}
_LABELS = {
    "Model": "modelyard.dev/model",
    "ModelService": "modelyard.dev/service",
    "ModelJob": "modelyard.dev/job",
    "ModelStream": "modelyard.dev/stream",
}


def steps(reason: str, kind: str, name: str, namespace: str, *, cluster: bool) -> tuple[str, ...]:
    """() where what is done on a laptop is right, too."""
    found = ONLY_THERE.get(reason) or (_THERE.get(reason, ()) if cluster else ())
    words = {"name": name, "namespace": namespace, "label": _LABELS.get(kind, "modelyard.dev/service")}
    return tuple(each.format(**words) for each in found)
