"""Modelyard itself as Kubernetes objects: what `modelyard install`, `deploy/install.yaml` and the chart are made of."""

from collections.abc import Iterable, Mapping
from typing import Any

from modelyard.control.render import install_access, install_network, install_pods
from modelyard.control.render.install_options import MANAGED_BY, NAMESPACE, Object, Options, labels, made
from modelyard.control.render.install_record import record

__all__ = ["Object", "Options", "manifests"]
_POD_SECURITY = {
    f"pod-security.kubernetes.io/{mode}": value
    for mode, value in (("enforce", "restricted"), ("audit", "restricted"), ("warn", "restricted"))
}


def manifests(options: Options, definitions: Iterable[Mapping[str, Any]]) -> tuple[Object, ...]:
    """All objects, in an order in which each finds what it needs. definitions: the CustomResourceDefinitions.

    The ConfigMap of the settings is not among them: it is its owner's, and installing again must not take it back.
    """
    policies = install_network.policies(options) if options.network_policies else []
    records = [record(options)] if options.managed_by == MANAGED_BY else []  # Helm remembers values itself
    return (
        namespace(options),
        *(_labelled(each, options) for each in definitions),
        *install_access.access(options),
        *records,
        install_pods.bootstrap(options),
        *install_network.services(options),
        *install_network.budgets(options),
        *policies,
        *install_pods.deployments(options),
    )


def namespace(options: Options) -> Object:
    """Nothing in it may run as root or with more than a pod needs."""
    found = made("v1", "Namespace", NAMESPACE, options, "system", namespaced=False)
    found["metadata"]["labels"] |= _POD_SECURITY
    return found


def _labelled(definition: Mapping[str, Any], options: Options) -> Object:
    metadata = definition["metadata"]
    return {**definition, "metadata": {**metadata, "labels": labels(options, "api")}}
