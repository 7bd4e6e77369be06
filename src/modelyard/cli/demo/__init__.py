"""`modelyard demo`: the whole product in half a minute, on real data, with real processes."""

from importlib.util import find_spec

import click

from modelyard.base.errors import UserError
from modelyard.cli.demo.screen import Screen

_NEEDED = {"sklearn": "scikit-learn", "skops": "skops", "skl2onnx": "skl2onnx"}


@click.command(epilog="Example: modelyard demo", short_help="Show it all in half a minute, on real data.")
def command() -> None:
    """Train two models, serve them, switch under load, break one, and stop.

    Everything happens in a temporary folder that is removed at the end. A step that fails ends it with status 1.
    """
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"the demonstration trains models, which needs: pip install {' '.join(missing)}")
    from modelyard.cli.demo import story

    screen = Screen()
    story.run(screen)
    screen.done()
