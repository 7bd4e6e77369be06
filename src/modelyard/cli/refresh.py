"""`modelyard refresh`: the same path, new content."""

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.ir.names import ANNOTATION_REFRESH
from modelyard.control.kube import resources
from modelyard.sdk import objects
from modelyard.sdk.objects import Object


@click.command(epilog="Example: modelyard refresh digits", short_help="Read an artifact again and roll it out.")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new content is served.")
@click.option("--timeout", default=waiting.TIMEOUT_SECONDS, show_default=True, help="Seconds to wait.")
@server_options
def command(where: Where, name: str, wait: bool, timeout: float) -> None:
    """Read the artifact of a model again, after it was saved to the same path.

    NAME is a ModelService or a Model (or model/NAME). New content makes a new revision of every service that uses it;
    the old one serves until the new one is ready.
    """

    async def work(session: Session) -> None:
        print_target(session.target)
        service, model = await _find(session, name)
        before = (model.get("status") or {}).get("digest")
        asked = await objects.refresh(session.client, session.namespace, model["metadata"]["name"])
        # Nobody has chosen the name of the Model that belongs to a service.
        known = service if service is not None and objects.owned_by(model, service) else model
        subject = words.qualified(objects.resource_of(known), known["metadata"]["name"])
        if not wait:
            click.echo(f"{subject} is read again")
            return
        stamp = asked["metadata"]["annotations"][ANNOTATION_REFRESH]
        found = await waiting.wait_for(session, asked, lambda state: _answered(state, stamp), timeout, known=known)
        digest = str(((found or {}).get("status") or {}).get("digest"))
        if digest == before:
            click.echo(f"{subject} has the same content as before: {digest}")
        else:
            click.echo(f"{subject} has new content: {digest}")
        if service is not None:
            await waiting.wait_for(session, service, lambda state: _serves(state, digest), timeout)
            click.echo(f"{words.qualified(resources.MODELSERVICES, service['metadata']['name'])} serves it")

    run(where, work)


async def _find(session: Session, name: str) -> tuple[Object | None, Object]:
    """(the service, if NAME is one; the Model)."""
    kind, slash, rest = name.rpartition("/")
    if slash and words.kind(kind) not in (resources.MODELS, resources.MODELSERVICES):
        raise UserError(f"{name}: only models can be read again; expected NAME, model/NAME or modelservice/NAME")
    if not slash or words.kind(kind) is resources.MODELSERVICES:
        service = await objects.get(session.client, resources.MODELSERVICES, session.namespace, rest)
        if service is not None:
            model = await objects.model_of(session.client, service)
            if model is None:
                raise UserError(f"the model of ModelService {rest} is not there yet; 'modelyard why {rest}' says more")
            return service, model
    if not slash or words.kind(kind) is resources.MODELS:
        model = await objects.get(session.client, resources.MODELS, session.namespace, rest)
        if model is not None:
            return None, model
    raise UserError(f"there is no ModelService or Model {name} in namespace {session.namespace}")


def _answered(state: Object | None, stamp: str) -> bool:
    prepared = ((state or {}).get("status") or {}).get("prepared") or {}
    return prepared.get("refresh") == stamp and objects.is_ready(state)


def _serves(state: Object | None, digest: str) -> bool:
    return objects.is_ready(state) and ((state or {}).get("status") or {}).get("digest") == digest
