"""Objects of an installation that the installation of now does not have: of a former version, or of former options."""

from collections.abc import Iterable

import click

from modelyard.cli.installation import APPLIES_AS, named, resource_of
from modelyard.cli.session import Session
from modelyard.control.kube import resources
from modelyard.control.render.install_options import MANAGED_BY, NAMESPACE, Object
from modelyard.sdk import objects

_KINDS = (
    resources.DEPLOYMENTS,
    resources.PODDISRUPTIONBUDGETS,
    resources.NETWORKPOLICIES,
    resources.SERVICES,
    resources.CONFIGMAPS,
    *resources.ACCESS,
)
"""Never definitions, since everybody's objects would go with them; nor Secrets, which are the operator's."""
SELECTOR = f"app.kubernetes.io/managed-by={MANAGED_BY},app.kubernetes.io/part-of=modelyard"


async def find(session: Session, wanted: Iterable[Object]) -> list[Object]:
    """Those with our labels that are not among the wanted ones, in the system namespace and outside namespaces."""
    keep = {named(each) for each in wanted}
    found = []
    for resource in _KINDS:
        where = NAMESPACE if resource.namespaced else None
        listed, _ = await objects.list_all(session.client, resource, where, labelSelector=SELECTOR)
        found += [each for each in listed if named(each) not in keep]
    return found


def is_ours(body: Object) -> bool:
    """Whether `modelyard install` has applied it: labels alone could have been copied."""
    applied = body["metadata"].get("managedFields") or ()
    return any(each.get("manager") == APPLIES_AS and each.get("operation") == "Apply" for each in applied)


async def remove(session: Session, wanted: Iterable[Object]) -> None:
    """Delete what is ours, and tell of what only looks like it."""
    for body in await find(session, wanted):
        if not is_ours(body):
            click.echo(f"{named(body)} is not of this version, and was not made by this command: it stays", err=True)
            continue
        resource, metadata = resource_of(body), body["metadata"]
        await objects.delete(session.client, resource, metadata.get("namespace"), metadata["name"])
        click.echo(f"{named(body)} deleted: it is not needed any more")
