"""`modelyard why`: one answer in one place."""

import time

import click

from modelyard.base.errors import UserError
from modelyard.cli import output, words
from modelyard.cli.session import Session, Where, run, server_options
from modelyard.control.kube import resources
from modelyard.sdk import objects
from modelyard.sdk.diagnosis import Case, Diagnosis, diagnose

_KINDS = (
    resources.MODELSERVICES,
    resources.MODELJOBS,
    resources.MODELSTREAMS,
    resources.MODELS,
    resources.RUNTIMES,
    resources.ACCESSPOLICIES,
)


@click.command(epilog="Example: modelyard why digits", short_help="Say why something is not Ready or Complete.")
@click.argument("name")
@output.formats("json", "yaml")
@server_options
def command(where: Where, name: str, form: str | None) -> None:
    """Say in one answer why NAME is not Ready or Complete: what failed, its last words, and what to do.

    NAME is a ModelService or else a ModelJob, ModelStream, Model, Runtime or AccessPolicy; KIND/NAME names one of them.
    """

    async def work(session: Session) -> Diagnosis:
        case = await look(session, name)
        return diagnose(case, time.time())

    found = run(where, work)
    if form is None:
        click.echo(found.text())
        return
    body = {
        "healthy": found.healthy,
        "headline": found.headline,
        "details": found.details,
        "facts": list(found.facts),
        "nextSteps": list(found.next_steps),
        "events": list(found.events),
    }
    output.emit(body, form)


async def look(session: Session, name: str) -> Case:
    """Everything there is to know about the object that NAME means. Raises UserError if there is none."""
    kind, slash, name = name.rpartition("/")
    kinds = (words.kind(kind),) if slash else _KINDS
    for resource in kinds:
        body = await objects.get(session.client, resource, session.namespace, name)
        if body is not None:
            return await case_of(session, body)
    first, *others = (each.kind for each in kinds)
    known = " or ".join(filter(None, (", ".join([first, *others[:-1]]), *others[-1:])))
    raise UserError(
        f"there is no {known} {name} in namespace {session.namespace}; 'modelyard get modelyard -A' lists what there is"
    )


async def case_of(session: Session, body: objects.Object) -> Case:
    """An object with what it refers to and what was told about it."""
    there = session.target.local is None
    events = await objects.events(session.client, body)
    if body["kind"] not in ("ModelService", "ModelJob", "ModelStream"):
        return Case(body=body, events=events, cluster=there)
    model = await objects.model_of(session.client, body)
    if model is not None:
        events = sorted([*events, *await objects.events(session.client, model)], key=objects.when)
    if body["kind"] == "ModelJob":
        return Case(body=body, model=model, events=events, cluster=there)
    revisions = await objects.revisions(session.client, body)
    return Case(body=body, model=model, revisions=revisions, events=events, cluster=there)
