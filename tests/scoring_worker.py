"""A worker for tests: y = 3 x + 1, as slowly as the file that its artifact names says (seconds for each batch)."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from modelyard.runtime.worker.python_worker import ERROR, PROTOCOL, READY, RESULT, Channel

FP64 = 12


def main() -> int:
    descriptors = [os.dup(number) for number in (3, 4)]
    os.close(3)
    os.close(4)
    with open(descriptors[0], "rb", buffering=0) as source, open(descriptors[1], "wb") as sink:
        channel = Channel(source, sink)
        hello = channel.read()
        assert hello is not None
        pace = Path(Path(dict(hello[2])["path"]).read_text().strip())
        channel.write(READY, texts=[("protocol", PROTOCOL), ("input", "FP64 -1 x"), ("output", "FP64 -1 y")])
        while (request := channel.read()) is not None:
            (x,) = (array for _, _, array in request[3])
            if len(x) > 1:  # not while it is proven
                time.sleep(float(pace.read_text()))
            if (x == -1).any():
                os.abort()
            if (x == -3).any():
                os.kill(os.getppid(), signal.SIGKILL)  # whoever asks for scores
            if (x == -2).any():
                channel.write(ERROR, request[1], [("kind", "user"), ("message", "x must not be -2")])
            else:
                channel.write(RESULT, request[1], tensors=[("y", FP64, np.asarray(3 * x + 1))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
