"""`modelyard diff`: what manifests would change, and what would follow."""

from dataclasses import dataclass
from typing import Any

import click

from modelyard.api.load import Document
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.cli import output, words
from modelyard.cli.faults import refuse_faults
from modelyard.cli.session import Session, Where, manifest_option, run, server_options
from modelyard.control.kube.client import ApiError
from modelyard.sdk import difference, manifests, objects
from modelyard.sdk.difference import Change
from modelyard.sdk.objects import Object

_DIFFERENT, _FAILED = 1, 2
_NEW, _CHANGED = "new", "changed"
_COLORS = {"-": "red", "+": "green"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What one document would do."""

    subject: str
    what: str
    changes: tuple[Change, ...]
    consequences: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """A new object may have no fields."""
        return bool(self.changes) or self.what == _NEW


class _Failed(click.ClickException):
    """As of kubectl diff, 1 means that there is a difference."""

    exit_code = _FAILED


@click.command(
    epilog="Example: modelyard diff -f service.yaml; exit status 0: no difference, 1: some, 2 or 3: it is not known",
    short_help="Show what manifests would change.",
)
@manifest_option("diff")
@output.formats("json", "yaml")
@server_options
@click.pass_context
def command(ctx: click.Context, where: Where, paths: tuple[str, ...], form: str | None) -> None:
    """Ask the server what 'modelyard apply' would change, and say what would follow: a new revision, other replicas,
    another route, or nothing. Nothing is stored.
    """
    try:
        read = manifests.read(paths)

        async def work(session: Session) -> list[Difference]:
            refuse_faults(read, session.namespace)
            return await _differences(session, read.documents)

        found = run(where, work)
    except RetryLater:
        raise
    except ModelyardError as error:
        raise _Failed(error.message) from error
    if form is not None:
        output.emit([_plain(each) for each in found], form)
    else:
        _show(found)
    ctx.exit(_DIFFERENT if any(each.differs for each in found) else 0)


async def _differences(session: Session, documents: tuple[Document, ...]) -> list[Difference]:
    """In the order of the manifests. Raises UserError with all that the server refuses."""
    new = {objects.place(each.body, "")[1] for each in documents if each.body.get("kind") == "Namespace"}
    found, failures = [], []
    for document in documents:
        try:
            found.append(await _difference(session, manifests.for_server(document, session.target), new))
        except ApiError as error:
            if error.status >= 500 or error.status in (401, 403):
                raise
            failures.append(f"{document.source}:{document.line}: {error.message}")
    if failures:
        raise UserError("\n".join(failures))
    return found


async def _difference(session: Session, body: Object, new: set[str]) -> Difference:
    """new: names of namespaces that are among the manifests, and need not be there yet."""
    resource = objects.resource_of(body)
    where, name = objects.place(body, session.namespace)
    live = await objects.get(session.client, resource, where, name)
    try:
        after, _ = await objects.apply(session.client, body, namespace=session.namespace, dry_run=True)
    except ApiError as error:
        if live is not None or error.status != 404 or where not in new:
            raise
        after = body
    after = {**after, "kind": resource.kind}
    changed = difference.changes(live, after)
    subject = words.qualified(resource, name) + (f" in {where}" if where else "")
    cluster = session.target.local is None
    follows = difference.consequences(live, after, changed, cluster=cluster) if changed or live is None else ()
    return Difference(subject=subject, what=_NEW if live is None else _CHANGED, changes=changed, consequences=follows)


def _show(found: list[Difference]) -> None:
    for each in found:
        if not each.differs:
            continue
        click.secho(f"{each.subject} ({each.what})", bold=True)
        for change in each.changes:
            for line in change.lines():
                click.secho(f"  {line}", fg=_COLORS[line[0]])
        for sentence in each.consequences:
            click.echo(f"  => {sentence}")
    same = sum(not each.differs for each in found)
    if same:
        click.echo(
            f"{same} object{'s' if same > 1 else ''} as {'they are' if same > 1 else 'it is'} declared", err=True
        )


def _plain(found: Difference) -> dict[str, Any]:
    fields = [{"path": each.path, "before": each.before, "after": each.after} for each in found.changes]
    return {
        "object": found.subject,
        "change": found.what if found.differs else "none",
        "fields": fields,
        "consequences": list(found.consequences),
    }
