"""WorkSpec: what control tells a process of the runtime half to do.

A JSON file of one object, `{"version": 1, "serve": {...}}` or `{"version": 1, "prepare": {...}}`. It says *what*,
never *where*: folders, sockets and the report's path are given by the driver in the environment (`Place`), so that the
same recorded WorkSpec runs in any place. Version N reads N-1; an unknown version or field is refused.
The schema is `spec/work.schema.json`.
"""

from collections.abc import Mapping

import msgspec

from modelyard.base.errors import UserError

VERSION = 1

BUILTIN_FORMATS = frozenset({"onnx", "skops", "joblib", "pickle"})
"""Formats that run without a Runtime."""

ENV_WORK = "MODELYARD_WORK"
ENV_REPORT = "MODELYARD_REPORT"
ENV_SOCKET = "MODELYARD_SOCKET"
ENV_CACHE = "MODELYARD_CACHE"
ENV_ROOT = "MODELYARD_ROOT"
ENV_SCRATCH = "MODELYARD_SCRATCH"


class _Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    pass


class TensorSpec(_Struct, frozen=True, kw_only=True):
    """One input or output of a model, in Open Inference Protocol terms.

    datatype: BOOL, UINT8..UINT64, INT8..INT64, FP16, FP32, FP64 or BYTES. shape: -1 is any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelWork(_Struct, frozen=True, kw_only=True):
    """One model that a server hosts.

    name: the canonical public id; aliases: further ids under which it answers (answers echo the name that was sent).
    version: the model version that callers see: the revision number. digest: the key of the artifact in the cache.
    trust: "pickle" allows loaders that run code of the artifact. command: the worker to launch, or empty for ours.
    """

    name: str
    aliases: tuple[str, ...] = ()
    version: str = "1"
    digest: str
    format: str
    trust: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    command: tuple[str, ...] = ()


class ServeWork(_Struct, frozen=True, kw_only=True):
    """Serve models until SIGTERM.

    threads: of the inference engine, from the CPU limit. max_batch_rows: the most rows put into one call of a model.
    max_queue: requests waiting for a model before further ones get 429. max_body_bytes: of one request, else 413.
    drain_seconds: how long requests in flight may take after SIGTERM.
    """

    models: tuple[ModelWork, ...]
    threads: int = 1
    max_batch_rows: int = 64
    max_queue: int = 1024
    max_body_bytes: int = 64 * 2**20
    drain_seconds: float = 30.0


class PrepareWork(_Struct, frozen=True, kw_only=True):
    """Read an artifact once: find its format, hash it, read its signature, store a copy under its digest.

    uri: a path relative to the project root, an absolute path or `file://`. digest, format, format_version, inputs and
    outputs: what the user pinned or declared; checked where the artifact says something itself.
    command: the worker of a Runtime that runs this format; empty for the built-in ones.
    """

    uri: str
    digest: str = ""
    format: str = ""
    format_version: str = ""
    trust: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    command: tuple[str, ...] = ()


class WorkSpec(_Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Exactly one of serve and prepare is set. The version is always written out, recorded specs included."""

    version: int = VERSION
    serve: ServeWork | None = None
    prepare: PrepareWork | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process finds its things: paths, from the environment that the driver sets.

    cache: folder of artifacts by digest. root: what relative URIs are relative to. scratch: the only folder it may
    write besides. socket: Unix socket to listen on. report: file that it replaces atomically with its latest Report.
    """

    work: str
    report: str
    cache: str
    scratch: str
    socket: str = ""
    root: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Place":
        """Read the variables; a missing one is a UserError that names it."""
        missing = [name for name in (ENV_WORK, ENV_REPORT, ENV_CACHE, ENV_SCRATCH) if not environment.get(name)]
        if missing:
            raise UserError(f"{', '.join(missing)} must be set: this program is started by Modelyard, not by hand")
        return cls(
            work=environment[ENV_WORK],
            report=environment[ENV_REPORT],
            cache=environment[ENV_CACHE],
            scratch=environment[ENV_SCRATCH],
            socket=environment.get(ENV_SOCKET, ""),
            root=environment.get(ENV_ROOT, ""),
        )

    def environment(self) -> dict[str, str]:
        """The inverse, for drivers."""
        pairs = {
            ENV_WORK: self.work,
            ENV_REPORT: self.report,
            ENV_CACHE: self.cache,
            ENV_SCRATCH: self.scratch,
            ENV_SOCKET: self.socket,
            ENV_ROOT: self.root,
        }
        return {name: value for name, value in pairs.items() if value}


def encode(work: WorkSpec) -> bytes:
    """Deterministic JSON."""
    return msgspec.json.encode(work, order="deterministic")


def decode(data: bytes) -> WorkSpec:
    """Raise UserError on anything but a WorkSpec of a version that this release reads."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise UserError(f"WorkSpec version {version} is not understood; this release reads version {VERSION}")
        work = msgspec.json.decode(data, type=WorkSpec)
    except msgspec.DecodeError as error:
        raise UserError(f"the WorkSpec is not valid: {error}") from error
    if (work.serve is None) == (work.prepare is None):
        raise UserError("the WorkSpec must set exactly one of serve and prepare")
    return work


class _Versioned(msgspec.Struct):
    version: int
