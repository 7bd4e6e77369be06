"""`modelyard install`: put operator, gateway and definitions into a Kubernetes cluster, or upgrade them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

import modelyard
from modelyard.api.schema import crds
from modelyard.base import quantities
from modelyard.base.errors import UserError
from modelyard.cli import leftovers, rollout, waiting
from modelyard.cli.installation import (
    APPLIES_AS,
    context_option,
    is_of_helm,
    named,
    path_of,
    refuse_wrong_cluster,
    resource_of,
)
from modelyard.cli.session import Session, Where, print_target, run
from modelyard.control.kube import resources
from modelyard.control.render import install_record
from modelyard.control.render.documents import documents
from modelyard.control.render.install import manifests
from modelyard.control.render.install_options import IMAGE_PREFIX, NAMESPACE, Object, Options
from modelyard.control.render.install_record import RECORD, Record
from modelyard.sdk import objects

_SERVER_SIDE = "application/apply-patch+yaml"
_LEAST_GATEWAY_BYTES = 256 * 2**20
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9._:/-]*[a-z0-9._:/-])?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_REMEMBERED = (
    *("image_prefix", "pull_policy", "pull_secrets", "operator_replicas", "gateway_replicas", "gateway_memory"),
    *("service_type", "network_policies"),
)


@click.command(
    epilog="Example: modelyard install --print | kubectl apply -f -, or: modelyard install --context NAME",
    short_help="Install into a Kubernetes cluster, or upgrade.",
)
@click.option(
    "--print",
    "printed",
    is_flag=True,
    help="Print the manifests instead. It needs no cluster; with --context they have the options remembered there.",
)
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
@click.option("--defaults", is_flag=True, help="Forget the options of former installations; those said now remain.")
@click.option("--downgrade", is_flag=True, help="Go back to this version from a newer one.")
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
@click.pass_context
def command(context: click.Context, /, where: Where, **_others: Any) -> None:
    """Install Modelyard into a Kubernetes cluster: definitions, roles, operator and gateway.

    A second time it changes what differs from this version of the command line, and so upgrades. The options of before
    are remembered there, the tag of the images is not. No pod of a model is restarted. The settings (ConfigMap
    modelyard) are never touched.
    """
    options = _options(context)
    printed = context.params["printed"]
    if where.context is None:
        if not printed:
            raise click.UsageError("name the cluster with --context NAME, or use --print")
        click.echo(documents(manifests(options, crds())), nl=False)
        return

    async def work(session: Session) -> None:
        print_target(session.target, err=printed)
        await refuse_wrong_cluster(session)
        former = await objects.get(session.client, resources.CONFIGMAPS, NAMESPACE, RECORD)
        wanted, news = (options, []) if former is None else decided(context, install_record.read(former))
        if printed:
            click.echo(documents(manifests(wanted, crds())), nl=False)
            return
        for line in news:
            click.echo(line)
        await _put(session, wanted, context.params)

    run(where, work)


def decided(context: click.Context, former: Record) -> tuple[Options, list[str]]:
    """What is said now, over what is remembered, over the defaults. -> (options, what is to be told of that).

    Raises UserError when that would go back to an older version unasked.
    """
    here, downgrade = modelyard.__version__, context.params["downgrade"] or context.params["printed"]
    if install_record.is_older(here, than=former.version) and not downgrade:
        raise UserError(
            f"Modelyard {former.version} is installed there, and this command line is {here}: install with a newer "
            "one, or say --downgrade to go back"
        )
    news = [] if former.version == here else [f"version: {former.version or 'unknown'} -> {here}"]
    forget = context.params["defaults"]
    try:
        remembered = command.make_context("install", list(former.arguments))
        before = replace(_options(remembered), version=former.tag)
    except click.UsageError as error:
        if forget:
            return _options(context), [*news, f"forgotten: {' '.join(former.arguments)}"]
        raise UserError(
            f"ConfigMap {RECORD} in {NAMESPACE} remembers options that this version does not take: "
            f"{error.format_message()}; --defaults forgets them, say all that you want with it"
        ) from error
    if not forget:
        now = _said(context)
        kept = [name for name in _said(remembered) if name not in now]
        context.params |= {name: remembered.params[name] for name in kept}
    wanted = _options(context)
    same = [each for each in former.arguments if each in install_record.arguments(wanted)]
    told = [f"as before: {' '.join(same)} (--defaults forgets that)"] if same else []
    return wanted, [*news, *install_record.changes(before, wanted), *told]


def _said(context: click.Context) -> list[str]:
    """The parameters that were given."""
    default = ParameterSource.DEFAULT
    return [name for name in _REMEMBERED if context.get_parameter_source(name) is not default]


def _options(context: click.Context) -> Options:
    """All that is wrong is said at once. Raises click.UsageError."""
    said = {name: context.params[name] for name in (*_REMEMBERED, "image_tag")}
    wrong = []
    if not _PREFIX.fullmatch(said["image_prefix"]):
        wrong.append(f"--image-prefix {said['image_prefix']!r}: expected one as registry.example.com/team/modelyard-")
    if not _TAG.fullmatch(said["image_tag"]):
        wrong.append(f"--image-tag {said['image_tag']!r}: expected a tag of at most 63 characters, as in 1.2.3")
    wrong += [
        f"--pull-secret {name!r}: expected the name of a Secret"
        for name in said["pull_secrets"]
        if not _NAME.fullmatch(name)
    ]
    memory = said.pop("gateway_memory")
    if not _is_memory(memory):
        wrong.append(f"--gateway-memory {memory!r}: expected 256Mi or more, as in 1Gi")
    if wrong:
        raise click.UsageError("\n".join(wrong))
    options = Options(version=said.pop("image_tag"), **said)
    limited = options.gateway_resources
    return replace(options, gateway_resources={**limited, "limits": {**limited["limits"], "memory": memory}})


def _is_memory(text: str) -> bool:
    try:
        return quantities.whole(text) >= _LEAST_GATEWAY_BYTES
    except ValueError:
        return False


async def _put(session: Session, options: Options, asked: Mapping[str, Any]) -> None:
    """Apply, wait, and remove what is not needed any more: pods of the version before may need it until they end."""
    bodies = manifests(options, crds())
    await _apply(session, bodies)
    if not asked["wait"]:
        left = [named(each) for each in await leftovers.find(session, bodies)]
        if left:
            click.echo(f"not needed any more, and left until an installation that waits: {', '.join(left)}")
        return
    await rollout.wait(session, asked["timeout"])
    await leftovers.remove(session, bodies)
    click.echo(f"Modelyard {options.version} is ready: apply a manifest with 'modelyard apply --context NAME'")


async def _apply(session: Session, bodies: tuple[Object, ...]) -> None:
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
            parameters={"fieldManager": APPLIES_AS, "force": "true", "fieldValidation": "Strict"},
            content_type=_SERVER_SIDE,
        )
        click.echo(f"{named(body)} {_change(live, stored)}")


def _change(live: Object | None, stored: Object) -> str:
    if live is None:
        return objects.CREATED
    same = live["metadata"].get("resourceVersion") == stored["metadata"].get("resourceVersion")
    return objects.UNCHANGED if same else objects.CONFIGURED
