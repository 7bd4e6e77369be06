"""The command line. Commands are imported when they run, so that `modelyard --help` stays quick.

Exit status: 0 done; 1 something must be changed first; 2 wrong usage; 3 try again later; 130 interrupted. When
whoever reads the output has gone, a command ends quietly with 1, as click does.
"""

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

_COMMANDS = {
    "up": "Start Modelyard for a project folder.",
    "apply": "Create or change objects from manifests.",
    "get": "List objects.",
    "describe": "Show one object with its conditions and events.",
    "why": "Say why a service, job, stream or model is not as it should be.",
    "diff": "Show what manifests would change.",
    "push": "Upload a file or folder, and print the uri to write into a manifest.",
    "predict": "Send rows to a model.",
    "logs": "Show what the processes of a service, job, stream or model wrote.",
    "requests": "Show what callers asked and were answered.",
    "delete": "Delete objects.",
    "refresh": "Read a model's artifact again and roll it out.",
    "restart": "Start a service or stream again.",
    "suspend": "Stop a job or stream; what it has done stays.",
    "resume": "Let a suspended job or stream go on.",
    "validate": "Check manifests without a server.",
    "serve": "Serve one model file, without a server.",
    "token": "Make, rotate and revoke tokens for people.",
    "kubeconfig": "Print the path of the project's kubeconfig.",
    "install": "Install Modelyard into a Kubernetes cluster, or upgrade it.",
    "uninstall": "Remove Modelyard from a Kubernetes cluster.",
    "demo": "Show it all in a minute, on real data.",
    "version": "Print the version.",
}
"""Every command is `command` in a module of its name."""
_USER, _LATER, _INTERRUPTED = 1, 3, 130
_DEBUG = "modelyard.debug"


class _Commands(click.Group):
    # ruff: noqa: ARG002  click gives a context to each of these
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found = import_module(f"modelyard.cli.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in _COMMANDS or args[0].startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        close = get_close_matches(args[0], _COMMANDS, 1)
        return ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {close[0]}?" if close else ""))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked:
        import modelyard

        click.echo(f"modelyard {modelyard.__version__}")
        ctx.exit()


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: modelyard up, then in another terminal: modelyard apply -f service.yaml --wait",
)
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def _root(ctx: click.Context, debug: bool) -> None:
    """Run machine-learning models as services, in jobs and on streams, in any language, from one manifest.

    Exit status: 0 done, 1 something must be changed first, 2 wrong usage, 3 try again later, 130 interrupted.
    """
    ctx.obj[_DEBUG] = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. -> the exit status; every failure is one sentence on stderr."""
    shared: dict[str, Any] = {}
    try:
        return _told(lambda: _root.main(arguments, "modelyard", standalone_mode=False, obj=shared), shared)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _USER


def _told(run: Callable[[], Any], shared: dict[str, Any]) -> int:
    from modelyard.base.errors import ModelyardError

    try:
        status = run()
        sys.stdout.flush()
    except click.ClickException as error:
        _explain(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except ModelyardError as error:
        _trace(shared)
        click.echo(f"error: {error.message}", err=True)
        return _LATER if _may_heal(error) else _USER
    except BrokenPipeError:
        raise
    except Exception as error:
        _trace(shared)
        click.echo(
            f"error: a defect of Modelyard: {type(error).__name__}: {error}; "
            "'modelyard --debug ...' shows where, please report it",
            err=True,
        )
        return _USER
    return status if isinstance(status, int) else 0


def _explain(error: click.ClickException) -> None:
    """Wrong usage looks like every other failure, and names the page that helps."""
    message = error.format_message().rstrip(".")
    click.echo(f"error: {message[:1].lower()}{message[1:]}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        words = (error.ctx.command_path, *error.ctx.command.collect_usage_pieces(error.ctx))
        click.echo(f"usage: {' '.join(words)} ('{error.ctx.command_path} --help' says more)", err=True)


def _may_heal(error: Exception) -> bool:
    from modelyard.base.errors import RetryLater

    # ApiError is of neither family; its HTTP status tells.
    status = getattr(error, "status", 0)
    return isinstance(error, RetryLater) or status == 429 or status >= 500


def _trace(shared: dict[str, Any]) -> None:
    if shared.get(_DEBUG):
        import traceback

        traceback.print_exc()
