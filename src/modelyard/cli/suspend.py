"""`modelyard suspend` and `modelyard resume`: stop the runners of a job or stream, and let them go on."""

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.kube import resources
from modelyard.control.kube.resources import Resource
from modelyard.sdk import objects, progress
from modelyard.sdk.merge import last_applied
from modelyard.sdk.objects import Object
from modelyard.sdk.progress import State

_KINDS = (resources.MODELJOBS, resources.MODELSTREAMS)


@click.command(epilog="Example: modelyard suspend score", short_help="Stop a job or stream; what it has done stays.")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is suspended.")
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
    """Stop the runners of NAME, a ModelJob or else a ModelStream, and release what they use.

    Results that are committed stay; 'modelyard resume NAME' does the rest. The deadline of a job counts anew from then.
    """
    change(where, name, timeout if wait else None, suspended=True)


def change(where: Where, name: str, seconds: float | None, *, suspended: bool) -> None:
    """Set spec.suspend of a job or stream, and wait so many seconds until that shows; None: do not wait."""

    async def work(session: Session) -> None:
        print_target(session.target)
        resource, found = await _find(session, name, suspended=suspended)
        plain = found["metadata"]["name"]
        subject = words.qualified(resource, plain)
        if bool(found["spec"].get("suspend")) is suspended:
            click.echo(f"{subject} {'is suspended already' if suspended else 'is not suspended'}")
            return
        asked = await objects.suspend(session.client, resource, session.namespace, plain, suspended=suspended)
        if seconds is None:
            click.echo(f"{subject} {'is being suspended' if suspended else 'goes on'}")
        else:
            shown = await waiting.wait_for(session, asked, lambda state: _shows(state, asked, suspended), seconds)
            click.echo(f"{subject} {_told(shown or {})}")
        if (last_applied(asked).get("spec") or {}).get("suspend", suspended) is not suspended:
            told = f"set spec.suspend: {str(suspended).lower()} in the manifest, too, or applying it undoes this"
            click.echo(f"note: {told}", err=True)

    run(where, work)


async def _find(session: Session, name: str, *, suspended: bool) -> tuple[Resource, Object]:
    """The job or stream, if that can still be asked of it. Raises UserError."""
    kind, slash, rest = name.rpartition("/")
    kinds = (words.kind(kind),) if slash else _KINDS
    if not set(kinds) <= set(_KINDS):
        raise UserError(
            f"{name}: only jobs and streams can be suspended and resumed; expected NAME, modeljob/NAME or "
            "modelstream/NAME"
        )
    for resource in kinds:
        found = await objects.get(session.client, resource, session.namespace, rest)
        if found is not None:
            _refuse_ended(found, suspended=suspended)
            return resource, found
    service = await objects.get(session.client, resources.MODELSERVICES, session.namespace, rest)
    hint = f"; {rest} is a ModelService: spec.replicas: 0 stops it" if service is not None else ""
    known = " or ".join(each.kind for each in kinds)
    raise UserError(f"there is no {known} {rest} in namespace {session.namespace}{hint}")


def _refuse_ended(found: Object, *, suspended: bool) -> None:
    if found["kind"] != resources.MODELJOBS.kind:
        return
    name, state = found["metadata"]["name"], progress.of(found).state
    if state is State.FAILED and not suspended:
        raise UserError(
            f"ModelJob {name} has failed, and is never run again; 'modelyard why {name}' says how it is done after all"
        )
    if state.ended:
        raise UserError(f"ModelJob {name} has ended already ({state}): nothing of it runs")


def _shows(state: Object | None, asked: Object, suspended: bool) -> bool:
    """Whether it shows what was asked, or that a job ended before."""
    found = objects.condition(state, "Suspended")
    seen = int(found.get("observedGeneration") or 0) >= int(asked["metadata"].get("generation") or 0)
    ended = asked["kind"] == resources.MODELJOBS.kind and objects.is_ready(state)
    return ended or (seen and (found.get("status") == "True") is suspended)


def _told(state: Object) -> str:
    if state.get("kind") == resources.MODELSTREAMS.kind:
        if objects.condition(state, "Suspended").get("status") == "True":
            return "is suspended; its offsets stay"
        ready = objects.condition(state)
        return f"goes on: {ready.get('reason')}: {ready.get('message')}"
    found = progress.of(state)
    if found.state is State.SUSPENDED:
        there = progress.committed(found)
        return "is suspended" + (f"; {there} are committed and stay" if there else "")
    return f"{'ended before that' if found.state.ended else 'goes on'}: {progress.line(found)}"
