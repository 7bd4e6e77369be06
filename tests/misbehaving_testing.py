"""A model whose own code misbehaves. It imports little, for it is loaded in worker processes many times."""

import contextlib
import importlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np


class Misbehaving:
    """A model whose own code misbehaves: while it is loaded (`load`, `raise`, `import`) or when it scores."""

    n_features_in_ = 4

    def __init__(self, when: str) -> None:
        self.when = when

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.when == "load":
            print("about to fail")
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.when == "raise":
            raise RuntimeError("no luck today\nnor tomorrow")
        if self.when == "import":
            importlib.import_module("no_such_package.part")

    def predict(self, values: Any) -> Any:
        """Zeros, after what `when` says: always (`predict`, `talk`) or for a first value of 13 (`die`, `hang`)."""
        if self.when == "predict":
            raise RuntimeError("no luck today\nnor tomorrow")
        if self.when == "die" and values[0, 0] == 13:
            print("dying of row 13")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.when == "talk":
            os.write(1, b"garbage on stdout\n" * 10)
            for descriptor in (3, 4):
                with contextlib.suppress(OSError):
                    os.write(descriptor, b"garbage" * 10)
        if self.when == "hang" and values[0, 0] == 13:
            (Path(os.environ["TMPDIR"]) / "hanging").touch()
            signal.pause()
        return np.zeros(len(values))
