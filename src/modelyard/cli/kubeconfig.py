"""`modelyard kubeconfig`: for kubectl and other tools."""

import click

from modelyard.sdk import find


@click.command(
    epilog="Example: kubectl --kubeconfig $(modelyard kubeconfig) get modelyard",
    short_help="Print the path of the project's kubeconfig.",
)
def command() -> None:
    """Print the path of the kubeconfig of the project around the current folder. ~/.kube/config is never changed."""
    click.echo(find.data_folder() / "kubeconfig")
