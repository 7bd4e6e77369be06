"""What an installation may be like, and what all of its objects have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelyard.base import quantities

Object = dict[str, Any]
ServiceType = Literal["ClusterIP", "LoadBalancer", "NodePort"]
PullPolicy = Literal["IfNotPresent", "Always", "Never"]

NAMESPACE = "modelyard-system"
NAME = "modelyard"
OPERATOR = "modelyard-operator"
GATEWAY = "modelyard-gateway"
INTERNAL = "modelyard-gateway-internal"
XDS = "modelyard-xds"
IMAGE_PREFIX = "localhost/modelyard-"
"""Names images that were built here and loaded into the nodes: no registry is asked for them."""
MANAGED_BY = "modelyard-install"
"""Not the value by which the operator finds the pods of models."""
HTTP_PORT = 8080
"""Of the operator: health and metrics."""


def _operator_resources() -> Object:
    return {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


def _gateway_resources() -> Object:
    return {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What may differ. The namespace may not: settings, certificates and the addresses of services name it.

    version: tag of the images and label of all objects. pull_secrets: names of Secrets in the system namespace, and in
    each namespace that runs models. managed_by: who will change the objects again.
    """

    version: str
    image_prefix: str = IMAGE_PREFIX
    operator_replicas: int = 2
    gateway_replicas: int = 2
    service_type: ServiceType = "ClusterIP"
    pull_policy: PullPolicy = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    network_policies: bool = True
    operator_resources: Mapping[str, Any] = field(default_factory=_operator_resources)
    gateway_resources: Mapping[str, Any] = field(default_factory=_gateway_resources)
    managed_by: str = MANAGED_BY

    @property
    def gateway_memory_bytes(self) -> int:
        """The limit of its pods: with nearly all of it taken Envoy answers nobody new, instead of being ended."""
        return quantities.whole(self.gateway_resources["limits"]["memory"])

    def image(self, part: str) -> str:
        """`operator` -> `localhost/modelyard-operator:0.1.0`."""
        return f"{self.image_prefix}{part}:{self.version}"


def selector(component: str) -> dict[str, str]:
    """The labels by which pods of ours are found; a Deployment's can never be changed."""
    return {"app.kubernetes.io/name": NAME, "app.kubernetes.io/component": component}


def labels(options: Options, component: str) -> dict[str, str]:
    """Of an object and, but for the version, of pods."""
    return {
        **selector(component),
        "app.kubernetes.io/instance": NAME,
        "app.kubernetes.io/part-of": NAME,
        "app.kubernetes.io/version": options.version,
        "app.kubernetes.io/managed-by": options.managed_by,
    }


def made(
    api_version: str, kind: str, name: str, options: Options, component: str, *, namespaced: bool = True
) -> Object:
    """An object without its content."""
    metadata: Object = {"name": name} | ({"namespace": NAMESPACE} if namespaced else {})
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {**metadata, "labels": labels(options, component)},
    }
