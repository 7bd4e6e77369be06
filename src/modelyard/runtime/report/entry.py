"""How a program of the runtime half begins and ends.

What it imports takes a second, and the first process of a container does not hear SIGTERM before it has said what to do
then: so it says so first. Only the standard library is loaded here.

Source: signal(7), pid_namespaces(7).
"""

import importlib
import logging
import os
import signal
from typing import NoReturn

_TERMINATED = 128 + signal.SIGTERM


def run(module: str) -> NoReturn:
    """End with the exit status of `main()` of a module; with 143 at SIGTERM until that handles it otherwise."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_TERMINATED))
    exit_status: int = importlib.import_module(module).main()
    logging.shutdown()
    # Not sys.exit: threads that read, score or fetch cannot be waited for, and those of obstore that wake while the
    # interpreter ends abort the process (two times in 24).
    os._exit(exit_status)
