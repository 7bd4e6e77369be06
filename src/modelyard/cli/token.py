"""`modelyard token`: tokens for people who have no identity provider."""

import sys
import time

import click

from modelyard.base import durations
from modelyard.base.clock import timestamp
from modelyard.base.errors import UserError
from modelyard.cli import output
from modelyard.cli.session import Session, Where, print_target, run
from modelyard.sdk import tokens
from modelyard.sdk.tokens import Bearer, Made
from modelyard.wire import jose


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    try:
        return 0.0 if value == "0" else durations.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_on_server = click.option(
    "--context",
    "where",
    metavar="NAME",
    callback=lambda _context, _parameter, name: Where(context=name),
    help="A context of $KUBECONFIG instead of the project's own server.",
)


@click.group(
    epilog="Example: curl -H @<(printf 'x-api-key: %s' \"$(modelyard token create --user ana)\") ...",
    short_help="Make, rotate and revoke tokens for people.",
)
def command() -> None:
    """Tokens of the server's own issuer, for people who have no identity provider.

    Roles say what their users and groups may do; see 'modelyard token create --help'.
    """


@command.command(
    "create",
    epilog="Example: modelyard token create --user ana --group analysts --ttl 8h",
    short_help="Print a new token.",
)
@click.option("--user", default="", metavar="NAME", help="Whose token it is; by default the owner's, who may do all.")
@click.option("-g", "--group", "groups", multiple=True, metavar="NAME", help="A group of the user. Repeatable.")
@click.option(
    "--ttl", metavar="TIME", default="1h", show_default=True, callback=_seconds, help="How long: 1m to 2160h (90 days)."
)
@output.formats("json")
@_on_server
def create(where: Where, user: str, groups: tuple[str, ...], ttl: float, form: str | None) -> None:
    """Print a new token, and nothing else, on standard output; its id goes to standard error.

    The names are those that roles bind, as in 'kubectl create rolebinding ... --user=ana'. Whoever may read Secrets in
    the namespace modelyard-system may make tokens of anybody.
    """

    async def work(session: Session) -> Made:
        return await tokens.create(session.client, Bearer(user=user, groups=groups), ttl, time.time())

    made = run(where, work)
    if form == "json":
        shown = {"token": made.token, "id": made.id, "user": made.user, "groups": list(made.groups)}
        output.emit({**shown, "expires": timestamp(made.expires)}, "json")
        return
    click.echo(made.token)
    of = f"user {made.user}" + (f", groups {', '.join(made.groups)}" if made.groups else "")
    click.echo(f"token {made.id} of {of}; it ends at {timestamp(made.expires)}", err=True)


@command.command(
    "rotate", epilog="Example: modelyard token rotate --grace 0", short_help="Sign with a new key; end earlier tokens."
)
@click.option(
    "--grace",
    metavar="TIME",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="How long earlier tokens count; 0: all end now.",
)
@_on_server
def rotate(where: Where, grace: float) -> None:
    """Sign tokens with a new key. Those of earlier keys end after the grace, or when they expire."""

    async def work(session: Session) -> None:
        print_target(session.target, err=True)
        await tokens.rotate(session.client, grace, time.time())

    run(where, work)
    click.echo("a new key signs; " + (f"earlier tokens end in {durations.text(grace)}" if grace else "all tokens end"))


@command.command("revoke", epilog="Example: modelyard token revoke - < ana.token", short_help="End one token.")
@click.argument("given", metavar="TOKEN-ID|-")
@_on_server
def revoke(where: Where, given: str) -> None:
    """End one token: by its id, or '-' for the token itself on standard input. Never put a token on a command line."""
    text = given
    if given == "-":
        text = sys.stdin.read(2 * jose.LONGEST)
    elif "." in given:
        raise UserError("that looks like a token: give it on standard input, as in 'modelyard token revoke - < FILE'")

    async def work(session: Session) -> str:
        print_target(session.target, err=True)
        return await tokens.revoke(session.client, text, time.time())

    click.echo(f"token {run(where, work)} is revoked")
