"""`modelyard restart`: new processes for the same declaration."""

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.kube import resources
from modelyard.control.kube.resources import Resource
from modelyard.sdk import objects
from modelyard.sdk.objects import Object

_KINDS = (resources.MODELSERVICES, resources.MODELSTREAMS)


@click.command(epilog="Example: modelyard restart digits", short_help="Start a service or stream again.")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new processes have taken over.")
@click.option(
    "--timeout",
    type=str,
    callback=waiting.seconds,
    default=waiting.TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait, or 60s, 5m.",
)
@server_options
def command(where: Where, name: str, wait: bool, timeout: float) -> None:
    """Start every process of NAME, a ModelService or else a ModelStream, again, as a new revision.

    The old ones work until the new ones are ready: no request fails, and no record waits longer. Secrets and
    Modelyard's own programs are read anew. KIND/NAME names one of them.
    """

    async def work(session: Session) -> None:
        print_target(session.target)
        resource, found = await _find(session, name)
        before = (found.get("status") or {}).get("latestCreatedRevision")
        asked = await objects.restart(session.client, resource, session.namespace, found["metadata"]["name"])
        subject = words.qualified(resource, found["metadata"]["name"])
        if not wait:
            click.echo(f"{subject} is being restarted")
            return
        renewed = await waiting.wait_for(session, asked, lambda state: _renewed(state, before), timeout)
        verb = "serves" if resource is resources.MODELSERVICES else "scores"
        click.echo(f"{subject} restarted: {((renewed or {}).get('status') or {}).get('latestReadyRevision')} {verb}")

    run(where, work)


async def _find(session: Session, name: str) -> tuple[Resource, Object]:
    kind, slash, rest = name.rpartition("/")
    kinds = (words.kind(kind),) if slash else _KINDS
    if not set(kinds) <= set(_KINDS):
        raise UserError(
            f"{name}: only services and streams can be restarted; expected NAME, modelservice/NAME or modelstream/NAME"
        )
    for resource in kinds:
        found = await objects.get(session.client, resource, session.namespace, rest)
        if found is not None:
            return resource, found
    known = " or ".join(each.kind for each in kinds)
    raise UserError(f"there is no {known} {rest} in namespace {session.namespace}")


def _renewed(state: Object | None, before: str | None) -> bool:
    status = (state or {}).get("status") or {}
    return objects.is_ready(state) and status.get("latestReadyRevision") not in (None, before)
