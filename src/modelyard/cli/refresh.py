"""`modelyard refresh`: the same path, new content."""

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.ir.names import ANNOTATION_REFRESH
from modelyard.control.kube import resources
from modelyard.sdk import objects
from modelyard.sdk.objects import Object

_USERS = (resources.MODELSERVICES, resources.MODELSTREAMS)


@click.command(epilog="Example: modelyard refresh digits", short_help="Read an artifact again and roll it out.")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the new content is served.")
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
    """Read the artifact of a model again, after it was saved to the same path.

    NAME is a ModelService, a ModelStream or a Model; KIND/NAME names one of them. New content makes a new revision of
    every service and stream that uses it; the old one works until the new one is ready.
    """

    async def work(session: Session) -> None:
        print_target(session.target)
        user, model = await _find(session, name)
        before = (model.get("status") or {}).get("digest")
        asked = await objects.refresh(session.client, session.namespace, model["metadata"]["name"])
        # Nobody has chosen the name of the Model that belongs to a service or stream.
        known = user if user is not None and objects.owned_by(model, user) else model
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
        if user is not None and not _is_paused(user):
            await waiting.wait_for(session, user, lambda state: _uses(state, digest), timeout)
            verb = "serves it" if user["kind"] == resources.MODELSERVICES.kind else "scores with it"
            click.echo(f"{words.qualified(objects.resource_of(user), user['metadata']['name'])} {verb}")

    run(where, work)


async def _find(session: Session, name: str) -> tuple[Object | None, Object]:
    """(the service or stream, if NAME is one; the Model)."""
    kind, slash, rest = name.rpartition("/")
    kinds = (words.kind(kind),) if slash else (*_USERS, resources.MODELS)
    if not set(kinds) <= {*_USERS, resources.MODELS}:
        raise UserError(
            f"{name}: only models can be read again; expected NAME, model/NAME, modelservice/NAME or modelstream/NAME"
        )
    for resource in kinds:
        found = await objects.get(session.client, resource, session.namespace, rest)
        if found is None:
            continue
        if resource is resources.MODELS:
            return None, found
        model = await objects.model_of(session.client, found)
        if model is None:
            raise UserError(f"the model of {resource.kind} {rest} is not there yet; 'modelyard why {rest}' says more")
        return found, model
    known = "ModelService, ModelStream or Model" if not slash else kinds[0].kind
    raise UserError(f"there is no {known} {rest} in namespace {session.namespace}")


def _answered(state: Object | None, stamp: str) -> bool:
    prepared = ((state or {}).get("status") or {}).get("prepared") or {}
    return prepared.get("refresh") == stamp and objects.is_ready(state)


def _is_paused(user: Object) -> bool:
    return objects.condition(user, "Suspended").get("status") == "True"


def _uses(state: Object | None, digest: str) -> bool:
    return objects.is_ready(state) and ((state or {}).get("status") or {}).get("digest") == digest
