"""What pods of a kind have beyond the rest: an account, and an overlay over the template that is made for them."""

from typing import Annotated, Any

from pydantic import Field

from modelyard.api.fields import Part

_OPEN = {"x-kubernetes-preserve-unknown-fields": True}
_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ServiceAccountName = Annotated[str, Field(pattern=_SUBDOMAIN, max_length=253)]
_Texts = Annotated[dict[str, Annotated[str, Field(max_length=65536)]], Field(json_schema_extra={"maxProperties": 64})]


class PodMetadata(Part):
    """Labels and annotations of pods, besides those that Modelyard sets."""

    labels: _Texts | None = None
    """Labels, for example team: risk. Those of Modelyard (modelyard.dev/, app.kubernetes.io/) cannot be set."""
    annotations: _Texts | None = None
    """Annotations, for example sidecar.istio.io/inject: "false". Those of Modelyard cannot be set."""


class PodTemplate(Part):
    """What is merged over the template of the pods, field by field as of a strategic merge patch."""

    metadata: PodMetadata | None = None
    """Labels and annotations."""
    spec: Annotated[dict[str, Any], Field(json_schema_extra=_OPEN)] | None = None
    """Fields of a PodSpec: nodeSelector, tolerations, affinity, topologySpreadConstraints, priorityClassName,
    runtimeClassName, schedulerName, imagePullSecrets, resourceClaims, volumes, sidecars in containers and
    initContainers, stricter securityContext; volumeMounts of the container main. Whatever the *restricted* Pod Security
    profile forbids, or would replace what Modelyard sets, is refused as OverlayForbidden. Example: {nodeSelector:
    {disk: ssd}, tolerations: [{key: nvidia.com/gpu, operator: Exists}]}."""
