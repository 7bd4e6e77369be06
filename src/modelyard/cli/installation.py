"""What `install` and `uninstall` share: the objects of Modelyard itself, and the cluster they are for."""

import click

from modelyard.base.errors import UserError
from modelyard.cli.session import Session, Where
from modelyard.control.kube import resources
from modelyard.control.kube.resources import Resource
from modelyard.control.render.install_options import Object

DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
_RESOURCES = {each.kind: each for each in (*resources.ALL, *resources.PODS_AND_MORE, DEFINITIONS)}
_OLDEST = (1, 30)
"""The first Kubernetes with all that the manifests need: `preStop.sleep`, `unhealthyPodEvictionPolicy`."""
HELM = "Helm"
APPLIES_AS = "modelyard-install"
"""The field manager."""

context_option = click.option(
    "--context",
    "where",
    metavar="NAME",
    callback=lambda _context, _parameter, name: Where(context=name),
    help="The cluster: a context of $KUBECONFIG.",
)


def resource_of(body: Object) -> Resource:
    """Where an object of an installation lives."""
    return _RESOURCES[body["kind"]]


def path_of(body: Object) -> str:
    """The URL path of the object itself."""
    resource, metadata = resource_of(body), body["metadata"]
    return resource.path(metadata.get("namespace"), metadata["name"])


def named(body: Object) -> str:
    """`deployment/modelyard-operator`."""
    return f"{body['kind'].lower()}/{body['metadata']['name']}"


async def refuse_wrong_cluster(session: Session) -> None:
    """Raises UserError where Modelyard cannot be installed."""
    if session.target.local is not None:
        raise UserError(
            f"{session.target.description} is a server of 'modelyard up', which needs no installation: "
            "name the context of a Kubernetes cluster with --context"
        )
    found = await session.client.request("GET", "/version")
    version = _version(found)
    if version is not None and version < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise UserError(
            f"{session.target.description} runs Kubernetes {found.get('gitVersion')}: {oldest} or newer is needed"
        )


def _version(found: Object) -> tuple[int, int] | None:
    """None for one that says it in another way; then the objects themselves show what is missing."""
    major, minor = str(found.get("major", "")), str(found.get("minor", "")).rstrip("+")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def is_of_helm(live: Object) -> bool:
    """Whether Helm has made it and will change it again."""
    return bool((live["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == HELM)
