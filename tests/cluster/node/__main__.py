"""The node from the command line; see node.sh."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.node import build, files
from cluster.node.build import Missing, say
from cluster.node.node import NAME, Node, NotUp
from helm_testing import helm
from kubectl_testing import kubectl

_USAGE = (
    "usage: node.sh build | up | down | left | kubeconfig | kubectl ARG... | exec COMMAND... | load IMAGE.tar... | "
    "run COMMAND..."
)


def main(arguments: Sequence[str]) -> int:
    """Do what the first argument says; the status of what it ran."""
    node = Node()
    match arguments:
        case ["build"]:
            build.everything()
            kubectl()
            helm()
        case ["up"]:
            node.up()
        case ["down"]:
            node.down()
        case ["left"]:
            return left(node)
        case ["kubeconfig"]:
            print(node.kubeconfig)
        case ["kubectl", *rest]:
            os.execve(kubectl(), ["kubectl", *rest], {**os.environ, "KUBECONFIG": str(node.kubeconfig)})
        case ["exec", first, *rest]:
            command = node.inside([first, *rest])
            os.execvp(command[0], command)
        case ["load", *archives] if archives:
            for archive in archives:
                node.load(Path(archive))
        case ["run", *command] if command:
            return run(node, command)
        case _:
            say(_USAGE)
            return 2
    return 0


def left(node: Node) -> int:
    """Print what there is of the node that is named, or of all; the status says whether there is anything."""
    names = [node.which.name] if os.environ.get(NAME) else files.NAMES
    found = [each for name in names for each in Node(name).left()]
    for each in found:
        print(each)
    return 1 if found else 0


def run(node: Node, command: Sequence[str]) -> int:
    """Bring the node up, run a command, take the node down; the command's status.

    Ctrl-C reaches the command, too: it is given the time to end by itself.
    """
    try:
        node.up(held=True)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # that of node.sh
        with subprocess.Popen(command, env=environment) as process:
            try:
                return process.wait()
            except (KeyboardInterrupt, SystemExit) as end:
                if isinstance(end, SystemExit):
                    process.terminate()
                with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
                raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nobody is served by half an end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        node.down()


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda told, _: sys.exit(128 + told))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        sys.exit(main(sys.argv[1:]))
    except (Missing, NotUp) as error:
        say(f"node: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("node: interrupted")
        sys.exit(130)
