"""`modelyard restart`: new processes for the same declaration."""

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.kube import resources
from modelyard.sdk import objects
from modelyard.sdk.objects import Object


@click.command(epilog="Example: modelyard restart digits", short_help="Start all replicas of a service again.")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new replicas serve.")
@click.option("--timeout", default=waiting.TIMEOUT_SECONDS, show_default=True, help="Seconds to wait.")
@server_options
def command(where: Where, name: str, wait: bool, timeout: float) -> None:
    """Start every replica of the ModelService NAME again, as a new revision.

    The old replicas serve until the new ones are ready: no request fails. Secrets and Modelyard's own programs are
    read anew.
    """

    async def work(session: Session) -> None:
        print_target(session.target)
        service = await objects.get(session.client, resources.MODELSERVICES, session.namespace, name)
        if service is None:
            raise UserError(f"there is no ModelService {name} in namespace {session.namespace}")
        before = (service.get("status") or {}).get("latestCreatedRevision")
        asked = await objects.restart(session.client, session.namespace, name)
        subject = words.qualified(resources.MODELSERVICES, name)
        if not wait:
            click.echo(f"{subject} is being restarted")
            return
        found = await waiting.wait_for(session, asked, lambda state: _renewed(state, before), timeout)
        click.echo(f"{subject} restarted: {((found or {}).get('status') or {}).get('latestReadyRevision')} serves")

    run(where, work)


def _renewed(state: Object | None, before: str | None) -> bool:
    status = (state or {}).get("status") or {}
    return objects.is_ready(state) and status.get("latestReadyRevision") not in (None, before)
