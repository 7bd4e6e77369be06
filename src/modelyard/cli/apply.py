"""`modelyard apply`: make objects as manifests say."""

import asyncio
from typing import Any

import click

from modelyard.api.load import Document
from modelyard.base.errors import ModelyardError, UserError
from modelyard.cli import output, waiting, words
from modelyard.cli.faults import refuse_faults
from modelyard.cli.session import Session, Where, manifest_option, print_target, run, server_options
from modelyard.control.kube.client import ApiError
from modelyard.sdk import artifacts, manifests, objects, progress
from modelyard.sdk.objects import Object

_FIRST = ("Namespace", "Secret", "ConfigMap", "Runtime", "Model")
"""What others refer to goes first, so that nothing is said to be missing for a moment."""

_CONTINUOUS = ("ModelService", "ModelStream")
"""Kinds that use their Model as long as they are there."""


@click.command(
    epilog="Example: modelyard apply -f service.yaml --wait, or: modelyard apply -f job.yaml --watch",
    short_help="Create or change objects.",
)
@manifest_option("apply")
@click.option("--dry-run", is_flag=True, help="Let the server check everything and store nothing.")
@click.option("--wait", is_flag=True, help="Wait until everything applied is Ready, or Complete.")
@click.option("--watch", is_flag=True, help="The same, with a live view of jobs; for as long as they take.")
@click.option(
    "--timeout",
    type=str,
    callback=waiting.seconds,
    default=waiting.TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait; jobs that are watched may take longer.",
)
@output.formats("yaml", "json")
@server_options
def command(
    where: Where, paths: tuple[str, ...], dry_run: bool, wait: bool, watch: bool, timeout: float, form: str | None
) -> None:
    """Create the objects of manifests, or change them to what the manifests say.

    What a manifest no longer says is removed; what others have set stays. kubectl apply may be used in turn. A path
    without scheme is relative to its manifest.

    A job that fails ends the waiting with status 1; Ctrl-C ends only the waiting, not the job.
    """
    _refuse_together(dry_run=dry_run, wait=wait, watch=watch, form=form)
    read = manifests.read(paths)

    async def work(session: Session) -> None:
        print_target(session.target, err=form is not None)
        refuse_faults(read, session.namespace)
        applied = await apply_documents(session, read.documents, dry_run=dry_run, quiet=form is not None)
        if form is not None and not wait:
            _emit(applied, form)
        if dry_run:
            return
        for note in await asyncio.to_thread(artifacts.changed, session.target, await _served(session, applied)):
            click.echo(f"note: {note}", err=True)
        if watch:
            from modelyard.cli import following

            await following.follow(session, applied, timeout)
        elif wait and form is not None:
            await _wait_and_emit(session, applied, timeout, form)
        elif wait:
            await waiting.wait_all_ready(session, applied, waiting.Patience(seconds=timeout))

    run(where, work)


def _refuse_together(*, dry_run: bool, wait: bool, watch: bool, form: str | None) -> None:
    if wait and watch:
        raise click.UsageError("--watch waits already: leave --wait out")
    if dry_run and (wait or watch):
        raise click.UsageError(f"a dry run changes nothing that --{'wait' if wait else 'watch'} could wait for")
    if watch and form is not None:
        raise click.UsageError("--watch is for people; for programs use -o with --wait")


async def _wait_and_emit(session: Session, applied: list[Object], seconds: float, form: str) -> None:
    """The objects as they are in the end, for good or ill."""

    def silent(_text: str) -> None:
        return None

    failure: ModelyardError | None = None
    try:
        await waiting.wait_all_ready(session, applied, waiting.Patience(seconds=seconds, result=silent, summary=silent))
    except ModelyardError as error:
        failure = error
    found = []
    for body in applied:
        place = objects.place(body, session.namespace)
        found.append(await objects.get(session.client, objects.resource_of(body), *place) or body)
    _emit(found, form)
    if failure is not None:
        raise failure


async def apply_documents(
    session: Session, documents: tuple[Document, ...], *, dry_run: bool = False, quiet: bool = False
) -> list[Object]:
    """Every object is tried; one error for all that failed."""
    applied, failures = [], []
    for document in sorted(documents, key=_rank):
        body = manifests.for_server(document, session.target)
        try:
            stored, what = await objects.apply(session.client, body, namespace=session.namespace, dry_run=dry_run)
        except ApiError as error:
            if error.status >= 500 or error.status in (401, 403):
                raise
            failures.append(f"{document.source}:{document.line}: {error.message}")
            continue
        applied.append(stored)
        if not quiet:
            resource = objects.resource_of(body)
            suffix = " (dry run)" if dry_run else ""
            click.echo(f"{words.qualified(resource, stored['metadata']['name'])} {what}{suffix}")
    if failures:
        raise UserError("\n".join(failures))
    return applied


def _rank(document: Document) -> int:
    kind = document.body.get("kind")
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


async def _served(session: Session, applied: list[Object]) -> list[artifacts.Served]:
    """The models of what was applied, each once, by the name that `refresh` takes."""
    found: dict[str, artifacts.Served] = {}
    for body in applied:
        if body["kind"] == "Model":
            model: Object | None = body
        elif body["kind"] in _CONTINUOUS or _will_use(body):
            model = await objects.model_of(session.client, body)
        else:
            continue
        if model is not None:
            inline = body["kind"] in _CONTINUOUS and objects.owned_by(model, body)
            name = body["metadata"]["name"] if inline else model["metadata"]["name"]
            found.setdefault(model["metadata"]["name"], artifacts.Served(model=model, name=name))
    return list(found.values())


def _will_use(body: Object) -> bool:
    """A job that has not ended and names a Model; one with a model of its own has just had it read."""
    named = (objects.model_reference(body) or {}).get("name")
    return body["kind"] == "ModelJob" and bool(named) and not progress.of(body).state.ended


def _emit(applied: list[Object], form: str) -> None:
    value: Any = applied[0] if len(applied) == 1 else {"apiVersion": "v1", "kind": "List", "items": applied}
    output.emit(value, form)
