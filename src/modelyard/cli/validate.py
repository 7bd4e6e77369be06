"""`modelyard validate`: everything that can be checked without a server."""

import click

from modelyard.base.ids import DEFAULT_NAMESPACE
from modelyard.cli.faults import refuse_faults
from modelyard.sdk import manifests


@click.command(epilog="Example: modelyard validate *.yaml", short_help="Check manifests without a server.")
@click.argument("paths", nargs=-1, required=True, metavar="FILE...")
def command(paths: tuple[str, ...]) -> None:
    """Check manifests against the kinds of this release; all problems at once, with file and line."""
    read = manifests.read(paths)
    refuse_faults(read, DEFAULT_NAMESPACE)
    count = len(read.documents)
    click.echo(f"{count} object{'s are' if count != 1 else ' is'} valid")
