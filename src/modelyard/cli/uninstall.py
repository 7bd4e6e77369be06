"""`modelyard uninstall`: take operator, gateway and definitions out of a Kubernetes cluster."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing

import click

import modelyard
from modelyard.api.schema import crds
from modelyard.base.errors import RetryLater, UserError
from modelyard.cli import leftovers, waiting
from modelyard.cli.installation import context_option, named, refuse_wrong_cluster, resource_of
from modelyard.cli.session import Session, Where, print_target, run
from modelyard.control.kube import resources
from modelyard.control.kube.client import ApiError
from modelyard.control.kube.resources import Resource
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import NAMESPACE, Object, Options
from modelyard.sdk import objects, watching

_USERS = (resources.MODELSERVICES, resources.MODELJOBS, resources.MODELSTREAMS, resources.ACCESSPOLICIES)
"""They refer to the others, which go after them."""
_Found = dict[Resource, list[Object]]


@click.command(
    epilog="Example: modelyard uninstall --context NAME --delete-objects",
    short_help="Remove from a Kubernetes cluster.",
)
@click.option("--delete-objects", is_flag=True, help="Also delete all services, jobs, streams, models and policies.")
@click.option(
    "--timeout",
    type=str,
    callback=waiting.seconds,
    default=waiting.TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait for each step, or 60s, 5m.",
)
@context_option
def command(where: Where, delete_objects: bool, timeout: float) -> None:
    """Remove Modelyard from a Kubernetes cluster: operator, gateway, roles, definitions and its namespace.

    It refuses while objects of ours exist, in any namespace. Results of jobs, and what lies in object stores and at
    brokers, stay. The namespace takes the settings and the keys of tokens with it.
    """
    if where.context is None:
        raise click.UsageError("name the cluster with --context NAME")

    async def work(session: Session) -> None:
        print_target(session.target)
        await refuse_wrong_cluster(session)
        found = await _objects(session)
        if any(found.values()):
            if not delete_objects:
                raise UserError(refusal(found))
            await _delete_objects(session, found, timeout)
        removed = await _remove(session, timeout)
        click.echo("Modelyard is removed" if removed else "Modelyard is not installed there: nothing to remove")

    run(where, work)


async def _objects(session: Session) -> _Found:
    """Ours in all namespaces; a kind whose definition is not there has none."""
    found: _Found = {}
    for resource in resources.OURS:
        try:
            found[resource], _ = await objects.list_all(session.client, resource, None)
        except ApiError as error:
            if error.status != 404:
                raise
    return found


def refusal(found: _Found) -> str:
    """What is still there, by kind and namespace."""
    rows = []
    for resource, bodies in found.items():
        counts = Counter(body["metadata"]["namespace"] for body in bodies)
        rows += [f"  {_counted(resource, count)} in namespace {where}" for where, count in sorted(counts.items())]
    return "\n".join(
        (
            "there are objects that would be deleted with their definitions:",
            *rows,
            "delete them first, or say --delete-objects",
        )
    )


def _counted(resource: Resource, count: int) -> str:
    return f"{count} {resource.kind.lower() if count == 1 else resource.plural}"


async def _delete_objects(session: Session, found: _Found, seconds: float) -> None:
    """While the operator still runs: it ends their pods, and does what finalizers wait for."""
    after = tuple(resource for resource in resources.OURS if resource not in _USERS)
    for step in (_USERS, after):
        async with asyncio.TaskGroup() as group:
            for resource in step:
                if found.get(resource):
                    group.create_task(_delete_all(session, resource, found[resource], seconds))


async def _delete_all(session: Session, resource: Resource, bodies: Iterable[Object], seconds: float) -> None:
    count = 0
    for body in bodies:
        metadata = body["metadata"]
        gone = await objects.delete(session.client, resource, metadata["namespace"], metadata["name"])
        count += gone is not None
    await _until_none(session, resource, seconds)
    click.echo(f"{_counted(resource, count)} deleted")


async def _until_none(session: Session, resource: Resource, seconds: float) -> None:
    """Raises RetryLater that names what is still there."""
    left: set[tuple[str, str]] = set()
    try:
        async with asyncio.timeout(seconds), aclosing(watching.follow(session.client, resource, None)) as changes:
            async for kind, body in changes:
                if kind != watching.SYNCED:
                    key = body["metadata"]["namespace"], body["metadata"]["name"]
                    (left.discard if kind == "DELETED" else left.add)(key)
                elif not left:
                    return
                if kind == "DELETED" and not left:
                    return
    except TimeoutError as error:
        names = ", ".join("/".join(each) for each in sorted(left)[:5])
        raise RetryLater(
            f"{len(left)} {resource.plural} are still there after {seconds:g} s ({names}): the operator does what they "
            f"wait for, see 'kubectl -n {NAMESPACE} get pods'; then run this again"
        ) from error


async def _remove(session: Session, seconds: float) -> bool:
    """Everything that an installation consists of, those before it included, the namespace at the end."""
    bodies = manifests(Options(version=modelyard.__version__), crds())
    last = ("CustomResourceDefinition", "Namespace")
    steps = [[each for each in bodies if each["kind"] not in last]]
    steps[0] += [each for each in await leftovers.find(session, bodies) if leftovers.is_ours(each)]
    steps += [[each for each in bodies if each["kind"] == kind] for kind in last]
    removed = 0
    for step in steps:
        going = []
        for body in reversed(step):
            resource, metadata = resource_of(body), body["metadata"]
            uid = await objects.delete(session.client, resource, metadata.get("namespace"), metadata["name"])
            going += [body] if uid is not None else []
        for body in going:
            await _until_gone(session, body, seconds)
            click.echo(f"{named(body)} deleted")
        removed += len(going)
    return removed > 0


async def _until_gone(session: Session, body: Object, seconds: float) -> None:
    """Definitions and namespaces take a while."""
    metadata = body["metadata"]
    wish = watching.Wish(until=lambda state: state is None)
    await watching.wait(session.client, resource_of(body), metadata.get("namespace"), metadata["name"], wish, seconds)
