"""A codec with a model that sums, for tests of what messages become."""

import asyncio
import io
from collections.abc import Mapping as Map
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from modelyard.base.errors import UserError
from modelyard.runtime.scoring.scorer import Scorer
from modelyard.runtime.streams.encode import Codec, Encoded
from modelyard.runtime.streams.records import Message
from modelyard.wire.work import ModelWork, SinkWork, SourceWork, StreamWork, TensorSpec


def spec(name: str, datatype: str = "FP64", *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, *shape))


X, Y = spec("x"), spec("y")


def work(
    inputs: Sequence[TensorSpec] = (X,),
    outputs: Sequence[TensorSpec] = (Y,),
    *,
    source: str = "json",
    sink: str = "",
    columns: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    files: bool = False,
) -> StreamWork:
    where = {} if files else {"stream": "scored", "subject": "scored"}
    return StreamWork(
        name="default.fraud",
        revision="1",
        model=ModelWork(name="m", digest="", format="onnx", inputs=tuple(inputs), outputs=tuple(outputs)),
        source=SourceWork(uri="nats://local", stream="in", subjects=("in.>",), format=source, columns=columns),
        sink=SinkWork(uri="out" if files else "nats://local", format=sink, keep=keep, **where),
        dead_letter="dead",
    )


class Sum:
    """Every output is the sum of all inputs of the row, in the output's own shape; text counts by its length.

    A sum of 666 is refused.
    """

    def __init__(self, asked: StreamWork) -> None:
        self.inputs, self.outputs = asked.model.inputs, asked.model.outputs
        self.calls: list[dict[str, tuple[int, ...]]] = []

    async def infer(self, inputs: Map[str, Any]) -> Map[str, Any]:
        self.calls.append({name: array.shape for name, array in inputs.items()})
        rows = len(next(iter(inputs.values())))
        total = np.zeros(rows)
        for array in inputs.values():
            numbers = np.vectorize(len, otypes=[float])(array) if array.dtype == object and array.size else array
            total += np.zeros(rows) if not array.size else numbers.astype(float).reshape(rows, -1).sum(axis=1)
        if (total == 666).any():
            raise UserError("666 is no number")
        return {each.name: self._output(each, total) for each in self.outputs}

    def _output(self, each: TensorSpec, total: Any) -> Any:
        shape = (len(total), *(2 if size < 0 else size for size in each.shape[1:]))
        if each.datatype == "BYTES":
            found = np.empty(len(total), object)
            found[:] = [b"%g\xff" % value for value in total]
            return found.reshape(shape)
        dtype = {"FP64": "f8", "FP32": "f4", "INT64": "i8", "BOOL": "?"}[each.datatype]
        return np.broadcast_to(total.reshape(-1, *(1 for _ in shape[1:])), shape).astype(dtype)

    async def close(self) -> None:
        pass


def run(asked: StreamWork, messages: Sequence[Message], most_bytes: int = 0) -> Encoded:
    """All of it, as a lane does."""
    codec = Codec(asked)
    decoded = codec.decode(messages)
    scored = asyncio.run(Scorer(Sum(asked), codec.mapping, asked.model.outputs, 4096).score(decoded.batch))
    return codec.encode(decoded, scored, most_bytes)


def message(payload: Any, position: int = 1, **more: Any) -> Message:
    """payload: bytes as they are, a table as Arrow, anything else as JSON."""
    if isinstance(payload, pa.Table):
        payload = stream_of(payload)
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return Message(position=position, subject="in.1", payload=body, **more)


def stream_of(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue()
    return found


def table_of(payload: bytes) -> pa.Table:
    return pa.ipc.open_stream(payload).read_all()


def read(payload: bytes) -> Any:
    return msgspec.json.decode(payload)
