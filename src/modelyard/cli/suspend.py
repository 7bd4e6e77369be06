"""`modelyard suspend` and `modelyard resume`: stop the runners of a job, and let them go on."""

import click

from modelyard.base.errors import UserError
from modelyard.cli import waiting, words
from modelyard.cli.session import Session, Where, print_target, run, server_options
from modelyard.control.kube import resources
from modelyard.sdk import objects, progress
from modelyard.sdk.merge import last_applied
from modelyard.sdk.objects import Object
from modelyard.sdk.progress import Progress, State


@click.command(epilog="Example: modelyard suspend score", short_help="Stop a job; what it has done stays.")
@click.argument("name", metavar="JOB")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is suspended.")
@click.option("--timeout", default=waiting.TIMEOUT_SECONDS, show_default=True, help="Seconds to wait.")
@server_options
def command(where: Where, name: str, wait: bool, timeout: float) -> None:
    """Stop the runners of the ModelJob JOB and release what they use.

    Results that are committed stay; 'modelyard resume JOB' does the rest. The deadline counts anew from then.
    """
    change(where, name, timeout if wait else None, suspended=True)


def change(where: Where, name: str, seconds: float | None, *, suspended: bool) -> None:
    """Set spec.suspend of a job, and wait so many seconds until that shows; None: do not wait."""

    async def work(session: Session) -> None:
        print_target(session.target)
        job = await _find(session, name, suspended=suspended)
        subject = words.qualified(resources.MODELJOBS, job["metadata"]["name"])
        if bool(job["spec"].get("suspend")) is suspended:
            click.echo(f"{subject} {'is suspended already' if suspended else 'is not suspended'}")
            return
        asked = await objects.suspend(session.client, session.namespace, job["metadata"]["name"], suspended=suspended)
        if seconds is None:
            click.echo(f"{subject} {'is being suspended' if suspended else 'goes on'}")
        else:
            found = await waiting.wait_for(session, asked, lambda state: _shows(state, asked, suspended), seconds)
            click.echo(f"{subject} {_told(progress.of(found or {}))}")
        if (last_applied(asked).get("spec") or {}).get("suspend", suspended) is not suspended:
            told = f"set spec.suspend: {str(suspended).lower()} in the manifest, too, or applying it undoes this"
            click.echo(f"note: {told}", err=True)

    run(where, work)


async def _find(session: Session, name: str, *, suspended: bool) -> Object:
    """The job, if that can still be asked of it. Raises UserError."""
    kind, slash, rest = name.rpartition("/")
    if slash and words.kind(kind) is not resources.MODELJOBS:
        raise UserError(f"{name}: only jobs can be suspended and resumed; expected NAME or modeljob/NAME")
    job = await objects.get(session.client, resources.MODELJOBS, session.namespace, rest)
    if job is None:
        service = await objects.get(session.client, resources.MODELSERVICES, session.namespace, rest)
        hint = f"; {rest} is a ModelService: spec.replicas: 0 stops it" if service is not None else ""
        raise UserError(f"there is no ModelJob {rest} in namespace {session.namespace}{hint}")
    state = progress.of(job).state
    if state is State.FAILED and not suspended:
        raise UserError(
            f"ModelJob {rest} has failed, and is never run again; 'modelyard why {rest}' says how it is done after all"
        )
    if state.ended:
        raise UserError(f"ModelJob {rest} has ended already ({state}): nothing of it runs")
    return job


def _shows(state: Object | None, asked: Object, suspended: bool) -> bool:
    """Whether a job shows what was asked, or that it ended before."""
    found = objects.condition(state, "Suspended")
    seen = int(found.get("observedGeneration") or 0) >= int(asked["metadata"].get("generation") or 0)
    return objects.is_ready(state) or (seen and (found.get("status") == "True") is suspended)


def _told(found: Progress) -> str:
    if found.state is State.SUSPENDED:
        there = progress.committed(found)
        return "is suspended" + (f"; {there} are committed and stay" if there else "")
    return f"{'ended before that' if found.state.ended else 'goes on'}: {progress.line(found)}"
