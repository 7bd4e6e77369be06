"""`python -m modelyard.runtime.backends.apart`: ONNX Runtime behind the worker protocol, in a process of its own.

It costs a copy of every batch, and a row that ends the process (a defect of an operator, memory) ends nothing else.
"""

import asyncio
import faulthandler
import os
import sys
from pathlib import Path

from modelyard.base.errors import ModelyardError, UserError
from modelyard.runtime.backends.onnx import OnnxBackend
from modelyard.runtime.backends.port import Array, LoadFailed
from modelyard.runtime.worker.python_worker import ERROR, NAMES, PROTOCOL, READY, RESULT, Channel
from modelyard.wire import frames


def serve(channel: Channel) -> int:
    """Load the model that HELLO names and answer until the server is gone; returns the exit status."""
    hello = channel.read()
    if hello is None:
        return 0
    asked = dict(hello[2])
    with asyncio.Runner() as runner:
        try:
            backend = runner.run(OnnxBackend.open(Path(asked["path"]), int(asked["threads"])))
        except LoadFailed as refused:
            channel.write(ERROR, texts=[("kind", "user"), ("reason", refused.reason), ("message", refused.message)])
            return 0
        signature = [("input", frames.spec_text(spec)) for spec in backend.inputs]
        signature += [("output", frames.spec_text(spec)) for spec in backend.outputs]
        channel.write(READY, texts=[("protocol", PROTOCOL), ("formatVersion", ""), *signature])
        while (request := channel.read()) is not None:
            _answer(channel, runner, backend, request[1], {name: array for name, _, array in request[3]})
    return 0


def _answer(
    channel: Channel, runner: asyncio.Runner, backend: OnnxBackend, number: int, inputs: dict[str, Array]
) -> None:
    try:
        outputs = runner.run(backend.infer(inputs))
    except ModelyardError as error:
        kind = "user" if isinstance(error, UserError) else "internal"
        message = error.message.removeprefix("the model refused the values: ")
        channel.write(ERROR, number, [("kind", kind), ("message", message)])
    else:
        tensors = [(s.name, NAMES.index(s.datatype) + 1, outputs[s.name]) for s in backend.outputs]
        channel.write(RESULT, number, tensors=tensors)


def main() -> int:
    """The exit status."""
    descriptors = [os.dup(number) for number in (3, 4)]
    os.close(3)
    os.close(4)
    faulthandler.enable()
    with open(descriptors[0], "rb", buffering=0) as source, open(descriptors[1], "wb") as sink:
        return serve(Channel(source, sink))


if __name__ == "__main__":
    sys.exit(main())
