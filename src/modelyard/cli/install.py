"""`modelyard install`: put operator, gateway and definitions into a Kubernetes cluster, or upgrade them."""

import re
from dataclasses import replace
from typing import Any

import click

import modelyard
from modelyard.api.schema import crds
from modelyard.base import quantities
from modelyard.base.errors import UserError
from modelyard.cli import rollout, waiting
from modelyard.cli.installation import (
    context_option,
    is_of_helm,
    named,
    path_of,
    refuse_wrong_cluster,
    resource_of,
)
from modelyard.cli.session import Session, Where, print_target, run
from modelyard.control.render.documents import documents
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import IMAGE_PREFIX, NAMESPACE, Object, Options
from modelyard.sdk import objects

_OWNER = "modelyard-install"
"""The field manager."""
_APPLY = "application/apply-patch+yaml"
_LEAST_GATEWAY_BYTES = 256 * 2**20
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9._:/-]*[a-z0-9._:/-])?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@click.command(
    epilog="Example: modelyard install --print | kubectl apply -f -, or: modelyard install --context NAME",
    short_help="Install into a Kubernetes cluster, or upgrade.",
)
@click.option("--print", "printed", is_flag=True, help="Print the manifests instead; needs no cluster.")
@click.option(
    "--image-prefix",
    default=IMAGE_PREFIX,
    show_default=True,
    metavar="PREFIX",
    help="What the names of the images begin with, as in registry.example.com/team/modelyard-.",
)
@click.option("--image-tag", default=modelyard.__version__, show_default=True, metavar="TAG", help="Their tag.")
@click.option(
    "--pull-policy",
    type=click.Choice(["IfNotPresent", "Always", "Never"]),
    default="IfNotPresent",
    show_default=True,
    help="When nodes pull images; for the pods of models, too.",
)
@click.option(
    "--pull-secret",
    "pull_secrets",
    multiple=True,
    metavar="NAME",
    help=f"A Secret with the registry's credentials, in {NAMESPACE} and wherever models run. Repeatable.",
)
@click.option("--operator-replicas", type=click.IntRange(1, 9), default=2, show_default=True, help="One decides.")
@click.option("--gateway-replicas", type=click.IntRange(1, 999), default=2, show_default=True, help="All answer.")
@click.option(
    "--gateway-memory",
    default="1Gi",
    show_default=True,
    metavar="QUANTITY",
    help="Limit of each gateway; with nearly all of it taken, further requests get 503.",
)
@click.option(
    "--gateway-service",
    "service_type",
    type=click.Choice(["ClusterIP", "LoadBalancer", "NodePort"]),
    default="ClusterIP",
    show_default=True,
    help="How callers outside the cluster reach the gateway.",
)
@click.option(
    "--network-policies/--no-network-policies",
    default=True,
    show_default=True,
    help="Limit who reaches operator and gateway.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until operator and gateway are ready.")
@click.option(
    "--timeout",
    type=str,
    callback=waiting.seconds,
    default=waiting.TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait, or 60s, 5m.",
)
@context_option
def command(where: Where, printed: bool, wait: bool, timeout: float, **chosen: Any) -> None:
    """Install Modelyard into a Kubernetes cluster: definitions, roles, operator and gateway.

    A second time it changes what differs from this version of the command line, and so upgrades. No pod of a model is
    restarted. The settings (ConfigMap modelyard) are never touched.
    """
    options = _options(chosen)
    if printed:
        click.echo(documents(manifests(options, crds())), nl=False)
        return
    if where.context is None:
        raise click.UsageError("name the cluster with --context NAME, or use --print")

    async def work(session: Session) -> None:
        print_target(session.target)
        await refuse_wrong_cluster(session)
        await _install(session, manifests(options, crds()))
        if wait:
            await rollout.wait(session, timeout)
            click.echo(f"Modelyard {options.version} is ready: apply a manifest with 'modelyard apply --context NAME'")

    run(where, work)


def _options(chosen: dict[str, Any]) -> Options:
    """All that is wrong is said at once."""
    wrong = []
    if not _PREFIX.fullmatch(chosen["image_prefix"]):
        wrong.append(f"--image-prefix {chosen['image_prefix']!r}: expected one as registry.example.com/team/modelyard-")
    if not _TAG.fullmatch(chosen["image_tag"]):
        wrong.append(f"--image-tag {chosen['image_tag']!r}: expected a tag of at most 63 characters, as in 1.2.3")
    wrong += [
        f"--pull-secret {name!r}: expected the name of a Secret"
        for name in chosen["pull_secrets"]
        if not _NAME.fullmatch(name)
    ]
    memory = chosen.pop("gateway_memory")
    if not _is_memory(memory):
        wrong.append(f"--gateway-memory {memory!r}: expected 256Mi or more, as in 1Gi")
    if wrong:
        raise click.UsageError("\n".join(wrong))
    version = chosen.pop("image_tag")
    options = Options(version=version, **chosen)
    resources = options.gateway_resources
    return replace(options, gateway_resources={**resources, "limits": {**resources["limits"], "memory": memory}})


def _is_memory(text: str) -> bool:
    try:
        return quantities.whole(text) >= _LEAST_GATEWAY_BYTES
    except ValueError:
        return False


async def _install(session: Session, bodies: tuple[Object, ...]) -> None:
    """One after the other: each finds what it needs."""
    for body in bodies:
        live = await objects.get(
            session.client, resource_of(body), body["metadata"].get("namespace"), body["metadata"]["name"]
        )
        if live is not None and is_of_helm(live):
            raise UserError(f"{named(body)} was made by Helm: upgrade with 'helm upgrade', or uninstall it first")
        stored = await session.client.request(
            "PATCH",
            path_of(body),
            body=body,
            parameters={"fieldManager": _OWNER, "force": "true", "fieldValidation": "Strict"},
            content_type=_APPLY,
        )
        click.echo(f"{named(body)} {_change(live, stored)}")


def _change(live: Object | None, stored: Object) -> str:
    if live is None:
        return objects.CREATED
    same = live["metadata"].get("resourceVersion") == stored["metadata"].get("resourceVersion")
    return objects.UNCHANGED if same else objects.CONFIGURED
