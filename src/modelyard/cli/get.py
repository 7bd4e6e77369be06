"""`modelyard get`: list objects, or watch them."""

import asyncio
import sys
import time
from contextlib import aclosing
from typing import Any

import click

from modelyard.base.errors import UserError
from modelyard.cli import columns, output, words
from modelyard.cli.session import Session, Where, run, server_options
from modelyard.control.kube.resources import Resource
from modelyard.sdk import objects, watching
from modelyard.sdk.objects import Object


@click.command(epilog="Example: modelyard get modelservices -o wide", short_help="List objects.")
@click.argument("asked", nargs=-1, required=True, metavar="KIND [NAME]...")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", help="Only with these labels, for example team=a,stage!=test.")
@click.option("-w", "--watch", is_flag=True, help="Go on with every change, until Ctrl-C.")
@output.formats("wide", "yaml", "json", "name")
@server_options
def command(
    where: Where,
    asked: tuple[str, ...],
    all_namespaces: bool,
    selector: str | None,
    watch: bool,
    form: str | None,
) -> None:
    """List objects of a KIND, several (models,msvc), or all of Modelyard's (modelyard).

    With names only those. KIND is a plural, singular or short name.
    """
    view = _View(form=form or "", all_namespaces=all_namespaces)
    by_name = "/" in asked[0] or len(asked) > 1
    if by_name and (selector or all_namespaces):
        raise click.UsageError("names go with neither --selector nor --all-namespaces")

    async def work(session: Session) -> None:
        namespace = None if all_namespaces else session.namespace
        if by_name:
            named = words.objects(asked)
            kinds = tuple(dict.fromkeys(resource for resource, _ in named))
            if watch:
                await _watch(session, _only(kinds), namespace, view, {name for _, name in named}, None)
            else:
                _print(view, kinds, await _named(session, named), one=len(named) == 1)
            return
        kinds = words.kinds(asked[0])
        if watch:
            await _watch(session, _only(kinds), namespace, view, set(), selector)
            return
        chosen = {"labelSelector": selector} if selector else {}
        found = [
            each
            for resource in kinds
            for each in (await objects.list_all(session.client, resource, namespace, **chosen))[0]
        ]
        if not found and view.form not in ("yaml", "json"):
            place = "on the server" if namespace is None else f"in namespace {namespace}"
            click.echo(f"no {', '.join(each.plural for each in kinds)} {place}", err=True)
        else:
            _print(view, kinds, found, one=False)

    run(where, work)


class _View:
    """What the options say about the form."""

    def __init__(self, form: str, all_namespaces: bool) -> None:
        self.form = form
        self.wide = form == "wide"
        self.all_namespaces = all_namespaces
        self.widths: list[int] = []

    def titles(self, resource: Resource) -> list[str]:
        found = columns.titles(resource, wide=self.wide)
        return ["NAMESPACE", *found] if self.all_namespaces and resource.namespaced else found

    def rows(self, resource: Resource, found: list[Object], *, qualified: bool = False) -> list[list[str]]:
        rows = columns.rows(resource, found, time.time(), wide=self.wide)
        if qualified:
            rows = [[words.qualified(resource, row[0]), *row[1:]] for row in rows]
        if self.all_namespaces and resource.namespaced:
            rows = [[each["metadata"].get("namespace", ""), *row] for each, row in zip(found, rows, strict=True)]
        return rows


def _only(kinds: tuple[Resource, ...]) -> Resource:
    if len(kinds) != 1:
        raise UserError("-w follows one kind: name it, as in 'modelyard get modelservices -w'")
    return kinds[0]


async def _named(session: Session, named: tuple[words.Named, ...]) -> list[Object]:
    found = []
    missing = []
    for resource, name in named:
        namespace = session.namespace if resource.namespaced else None
        body = await objects.get(session.client, resource, namespace, name)
        if body is None:
            missing.append(f"there is no {resource.kind} {name}" + (f" in namespace {namespace}" if namespace else ""))
        else:
            found.append(body)
    if missing:
        raise UserError("\n".join(missing))
    return found


def _print(view: _View, kinds: tuple[Resource, ...], found: list[Object], *, one: bool) -> None:
    if view.form in ("yaml", "json"):
        value: Any = found[0] if one else {"apiVersion": "v1", "kind": "List", "items": found}
        output.emit(value, view.form)
        return
    first = True
    for resource in kinds:
        mine = [each for each in found if each.get("kind") == resource.kind]
        if view.form == "name":
            for each in mine:
                click.echo(words.qualified(resource, each["metadata"]["name"]))
        elif mine:
            if not first:
                click.echo()
            first = False
            output.table(view.titles(resource), view.rows(resource, mine, qualified=len(kinds) > 1))


async def _watch(
    session: Session, resource: Resource, namespace: str | None, view: _View, names: set[str], selector: str | None
) -> None:
    """First what is there, then a row or document for each change."""
    waiting: list[Object] = []
    started = False
    namespace = namespace if resource.namespaced else None
    async with aclosing(watching.follow(session.client, resource, namespace, selector=selector)) as changes:
        async for kind, body in changes:
            if kind == watching.SYNCED:
                if not started:
                    _show(view, resource, waiting, header=True)
                    started = True
            elif not names or body["metadata"]["name"] in names:
                if started:
                    _show(view, resource, [body], header=False)
                else:
                    waiting.append(body)
            await asyncio.sleep(0)


def _show(view: _View, resource: Resource, found: list[Object], *, header: bool) -> None:
    if view.form in ("yaml", "json"):
        for each in found:
            if view.form == "yaml":
                click.echo("---")
            output.emit(each, view.form)
    elif view.form == "name":
        for each in found:
            click.echo(words.qualified(resource, each["metadata"]["name"]))
    else:
        output.table(view.titles(resource), view.rows(resource, found), header=header, widths=view.widths)
    sys.stdout.flush()
