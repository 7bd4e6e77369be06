"""`modelyard delete`: remove objects and wait until they are gone."""

import asyncio

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.kube.resources import Resource
from modelyard.sdk import manifests, objects, watching
from modelyard.sdk.objects import Object

_QUIET_SECONDS = 2.0
_Place = tuple[Resource, str | None, str]


@click.command(epilog="Example: modelyard delete modelservice digits", short_help="Delete objects.")
@click.argument("asked", nargs=-1, metavar="[KIND NAME...]")
@click.option("-f", "--filename", "paths", multiple=True, help="Delete what this manifest or folder declares.")
@click.option("--ignore-not-found", is_flag=True, help="An object that is not there is no failure.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the objects are gone.")
@click.option(
    "--timeout",
    type=str,
    callback=waiting.seconds,
    default=waiting.TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds to wait, or 60s, 5m.",
)
@server_options
def command(
    where: Where, asked: tuple[str, ...], paths: tuple[str, ...], ignore_not_found: bool, wait: bool, timeout: float
) -> None:
    """Delete objects by KIND NAME, KIND/NAME, or those of manifests. What they own goes with them.

    The results of a job stay.
    """
    if bool(asked) == bool(paths):
        raise click.UsageError("give either KIND NAME or -f FILE")
    declared = [document.body for document in manifests.read(paths).documents] if paths else []

    async def work(session: Session) -> None:
        print_target(session.target)
        missing = []
        going: list[tuple[_Place, str]] = []
        for place in _places(session, asked, declared):
            resource, namespace, name = place
            uid = await objects.delete(session.client, resource, namespace, name)
            if uid is None:
                missing.append(
                    f"there is no {resource.kind} {name}" + (f" in namespace {namespace}" if namespace else "")
                )
            else:
                going.append((place, uid))
        for place, uid in going:
            if wait:
                await _wait(session, place, uid, timeout)
            click.echo(f"{words.qualified(place[0], place[2])} deleted")
        if missing and not ignore_not_found:
            raise UserError("\n".join(missing))

    run(where, work)


def _places(session: Session, asked: tuple[str, ...], declared: list[Object]) -> list[_Place]:
    if asked:
        return [
            (resource, session.namespace if resource.namespaced else None, name)
            for resource, name in words.objects(asked)
        ]
    found = [(objects.resource_of(body), *objects.place(body, session.namespace)) for body in declared]
    return found[::-1]  # what refers to others goes before them


async def _wait(session: Session, place: _Place, uid: str, seconds: float) -> None:
    resource, namespace, name = place
    saying = asyncio.create_task(_say_later(words.qualified(resource, name)))
    try:
        wish = watching.Wish(until=lambda state: _gone(state, uid))
        await watching.wait(session.client, resource, namespace, name, wish, seconds)
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)


async def _say_later(subject: str) -> None:
    await asyncio.sleep(_QUIET_SECONDS)
    click.echo(f"{subject}  is being deleted: its processes are ended first", err=True)


def _gone(state: Object | None, uid: str) -> bool:
    """An object of the same name that was made meanwhile is another one."""
    return state is None or state["metadata"].get("uid") != uid
