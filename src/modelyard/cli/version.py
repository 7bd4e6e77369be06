"""`modelyard version`."""

import platform
import sys

import click

import modelyard
from modelyard.cli import output


@click.command(epilog="Example: modelyard version -o json", short_help="Print the version.")
@output.formats("yaml", "json")
def command(form: str | None) -> None:
    """Print the version of Modelyard, and with -o what it runs on."""
    if form is None:
        click.echo(f"modelyard {modelyard.__version__}")
        return
    found = {
        "modelyard": modelyard.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
    }
    output.emit(found, form)
