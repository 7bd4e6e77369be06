"""From a model's work to the backend that runs it."""

import os
import sys
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.joined import JoinedBackend
from modelyard.runtime.backends.port import Backend, LoadFailed
from modelyard.runtime.backends.speaking import hello
from modelyard.runtime.backends.worker import WorkerBackend
from modelyard.wire.place import ENV_PIPES, ENV_SCRATCH
from modelyard.wire.work import BUILTIN_FORMATS, ModelWork

SUFFIXES = {
    "onnx": (".onnx",),
    "skops": (".skops",),
    "joblib": (".joblib",),
    "pickle": (".pkl", ".pickle"),
}
"""How the model's file ends where the artifact is a folder."""
_ONNX_APART = (sys.executable, "-P", "-u", "-m", "modelyard.runtime.backends.apart")


async def load(
    work: ModelWork, path: Path, *, threads: int, scratch: Path, job: bool = False, apart: bool = False
) -> Backend:
    """Load the artifact at `path`, a file or a folder.

    job: rows that end the model are looked for, see `WorkerBackend.open`. apart: in a process of its own, also where
    that costs speed.

    A Runtime's own worker gets the artifact as it is, and where the environment says so it runs in another container,
    which has a folder for scratch of its own. Raises LoadFailed.
    """
    if is_joined(work):
        scratch = Path(os.environ.get(ENV_SCRATCH, scratch))
        return await JoinedBackend.open(
            Path(os.environ[ENV_PIPES]), path, hello(work, path, threads, scratch), patient=job
        )
    if work.command:
        return await WorkerBackend.open(work, path, threads=threads, scratch=scratch, hurry=job)
    if work.format == "onnx" and not apart:
        # ONNX Runtime takes 80 ms and 30 MB, which a server of another format does not spend.
        from modelyard.runtime.backends.onnx import OnnxBackend  # noqa: PLC0415

        return await OnnxBackend.open(path, threads)
    if work.format == "onnx":
        return await WorkerBackend.open(
            work, model_file(path, "onnx"), threads=threads, scratch=scratch, hurry=job, own=_ONNX_APART
        )
    if work.format in BUILTIN_FORMATS:
        return await WorkerBackend.open(
            work, model_file(path, work.format), threads=threads, scratch=scratch, hurry=job
        )
    raise LoadFailed(Reason.FORMAT_UNKNOWN, unknown(work.format))


def is_joined(work: ModelWork) -> bool:
    """Whether its worker runs in another container: there is one of those, for one backend."""
    return bool(work.command and os.environ.get(ENV_PIPES))


def is_available(backend: Backend) -> bool:
    """Whether a batch can be asked for now: a process of our own is started with the next batch, if need be."""
    return not isinstance(backend, JoinedBackend) or backend.available


def unknown(format_name: str) -> str:
    """What to tell about a format that nothing here runs."""
    return (
        f"nothing here runs the format {format_name!r}; built in are {', '.join(sorted(BUILTIN_FORMATS))}; "
        "a Runtime that lists the format adds it"
    )


def model_file(path: Path, format_name: str) -> Path:
    """The file of the model: the artifact itself, or the only one in the folder that ends as the format's files do."""
    if not path.is_dir():
        return path
    endings = SUFFIXES[format_name]
    found = sorted(each for each in path.iterdir() if each.suffix in endings)
    if len(found) != 1:
        raise LoadFailed(
            Reason.ARTIFACT_INVALID,
            f"the folder {path.name} holds {len(found)} files named *{' or *'.join(endings)}; expected exactly one",
        )
    return found[0]
