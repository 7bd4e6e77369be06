"""What spec/worker-protocol.md promises: a program of a few lines, that knows only that page, serves a model."""

import sys
from pathlib import Path
from typing import Any

from yard_testing import Yard, service

# Reading the Model warms it up too, without the environment of a service: hence the default of FACTOR.
WORKER = """
import os, struct
import numpy as np
inp, out = os.fdopen(3, "rb"), os.fdopen(4, "wb")
def pad(part): return part + bytes(-len(part) % 8)
def send(kind, number, texts=(), tensors=()):
    body = struct.pack("<II", len(texts), len(tensors))
    for key, text in texts:
        body += pad(struct.pack("<II", len(key), len(text)) + key.encode() + text.encode())
    for name, array in tensors:
        body += struct.pack("<HBB4xQ", len(name), 12, array.ndim, array.nbytes)
        body += struct.pack(f"<{array.ndim}q", *array.shape) + pad(name.encode()) + pad(array.tobytes())
    out.write(struct.pack("<QIB3x", len(body), number, kind) + body)
    out.flush()
while head := inp.read(16):
    size, number, kind = struct.unpack("<QIB3x", head)
    body = inp.read(size)
    if kind == 1:
        send(2, number, [("protocol", "1"), ("input", "FP64 -1,2 X"), ("output", "FP64 -1,2 Y")])
    else:
        _, _, dimensions, length = struct.unpack_from("<HBB4xQ", body, 8)
        shape = struct.unpack_from(f"<{dimensions}q", body, 24)
        rows = np.frombuffer(body, "<f8", length // 8, 24 + 8 * dimensions + 8).reshape(shape)
        send(4, number, tensors=[("Y", rows * float(os.environ.get("FACTOR", "1")))])
"""


def declared(kind: str, name: str, **rest: Any) -> dict[str, Any]:
    version = "v1" if kind == "Secret" else "modelyard.dev/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "default"}, **rest}


def test_a_program_written_from_the_page_serves_with_a_secret_in_its_environment(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "model.txt").write_text("any content")
    command = [sys.executable, str(tmp_path / "worker.py")]
    with Yard(tmp_path) as yard:
        yard.apply(
            declared("Runtime", "times", spec={"formats": [{"name": "times"}], "process": {"command": command}}),
            declared("Secret", "factor", stringData={"factor": "3"}),
            service(
                "times",
                model={"uri": "model.txt", "format": "times"},
                runtime="times",
                env=[{"name": "FACTOR", "valueFrom": {"secretKeyRef": {"name": "factor", "key": "factor"}}}],
            ),
        )
        assert yard.cli("predict", "times", "--data", "[[1,2],[3,4]]").splitlines()[1:] == ["3      6", "9      12"]
