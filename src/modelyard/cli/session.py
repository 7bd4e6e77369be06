"""How commands reach a server: the options that name it, and one connection for the time of the command."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from modelyard.control.kube.client import Client
from modelyard.sdk import find

T = TypeVar("T")
_Command = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """What the options say. None: the project's server, the context's namespace."""

    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """An open connection. namespace: for objects that name none."""

    client: Client
    target: find.Target
    namespace: str


def server_options(function: _Command) -> _Command:
    """Adds --context and --namespace; the command gets them as its first argument, a Where."""

    @click.option("--context", metavar="NAME", help="A context of $KUBECONFIG instead of the project's own server.")
    @click.option("-n", "--namespace", metavar="NAME", help="Namespace of the objects.")
    @wraps(function)
    def wrapper(*args: Any, context: str | None, namespace: str | None, **options: Any) -> Any:
        return function(Where(context=context, namespace=namespace), *args, **options)

    return wrapper


def manifest_option(command: str) -> Callable[[_Command], _Command]:
    """The option -f of a command that needs it. Without it the answer shows how it is written."""

    def needed(_ctx: click.Context, _parameter: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
        if not paths:
            raise click.UsageError(f"name the manifest with -f, as in 'modelyard {command} -f service.yaml'")
        return paths

    explained = "Manifest, folder of them, or - for stdin. Repeatable."
    return click.option("-f", "--filename", "paths", multiple=True, callback=needed, metavar="FILE", help=explained)


def run(where: Where, work: Callable[[Session], Awaitable[T]]) -> T:
    """Find the server, connect, work, close. Ctrl-C cancels the work cleanly."""
    target = find.find(where.context)

    async def connected() -> T:
        async with Client(target.config) as client:
            namespace = where.namespace or target.config.namespace
            return await work(Session(client=client, target=target, namespace=namespace))

    return asyncio.run(connected())


def print_target(target: find.Target, *, err: bool = False) -> None:
    """A command that changes something says first where."""
    click.echo(f"server {target.description}", err=err)
