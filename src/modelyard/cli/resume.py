"""`modelyard resume`: let a suspended job or stream go on."""

import click

from modelyard.cli import waiting
from modelyard.cli.session import Where, server_options
from modelyard.cli.suspend import change


@click.command(epilog="Example: modelyard resume score", short_help="Let a suspended job or stream go on.")
@click.argument("name")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is no longer suspended.")
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
    """Let NAME, a ModelJob or else a ModelStream, go on where 'modelyard suspend' stopped it.

    What is committed is not done again.
    """
    change(where, name, timeout if wait else None, suspended=False)
