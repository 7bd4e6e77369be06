"""WorkSpec: what control tells a process of the runtime half to do.

A JSON file of one object, `{"version": 1, "serve": {...}}`, with `prepare`, `score`, `run`, `stream` or `clean` in its
place. It says *what*, never *where*: folders, sockets and the report's path are given by the driver in the environment
(`wire.place`), so that the same recorded WorkSpec runs in any place. Version N reads N-1; an unknown version or field
is refused. The schema is `spec/work.schema.json`.
"""

import msgspec

from modelyard.base.errors import UserError

VERSION = 1

BUILTIN_FORMATS = frozenset({"onnx", "skops", "joblib", "pickle"})
"""Formats that run without a Runtime."""

PARTS = ("serve", "prepare", "score", "run", "stream", "clean")
"""Of a WorkSpec, of which exactly one is set."""

GATEWAY_HEADER = "x-modelyard-gateway"
"""What requests bear that come through the gateway: the secret of the unit."""
SHADOW_HEADER = "x-modelyard-shadow"
"""On copies of requests; its value is how many of a hundred are to be compared."""

LOCAL_BROKER = "nats://local"
"""The uri of the broker that a laptop's server starts when a stream names it."""


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
    uri: from where it is fetched in a place whose processes share no cache; "" where they do.
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
    uri: str = ""


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

    uri: a path relative to the project root, an absolute path, `file://`, `s3://`, `gs://`, `az://` or `https://`.
    digest, format, format_version, inputs and outputs: what the user pinned or declared; checked where the artifact
    says something itself. command: the worker of a Runtime that runs this format; empty for the built-in ones.
    """

    uri: str
    digest: str = ""
    format: str = ""
    format_version: str = ""
    trust: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    command: tuple[str, ...] = ()


class InputWork(_Struct, frozen=True, kw_only=True):
    """Records to read: one object, or all below a prefix or folder.

    uri: as of PrepareWork, without https. format: parquet, csv, jsonl, arrow, images, or "" to tell by the names.
    columns: read only these; in the order in which they make up the rows of a model with one matrix as input.
    """

    uri: str
    format: str = ""
    columns: tuple[str, ...] = ()


class OutputWork(_Struct, frozen=True, kw_only=True):
    """A prefix to write to. format: as of the input (parquet, csv, jsonl, arrow) or "" for the input's.

    keep: columns of the input that are written beside the model's outputs. mode: create, overwrite or append.
    """

    uri: str
    format: str = ""
    keep: tuple[str, ...] = ()
    mode: str = "create"


class ErrorsWork(_Struct, frozen=True, kw_only=True):
    """on_error: fail, deadLetter or skip. More than max_rows, or max_percent of all rows, fail the run; None: no
    limit."""

    on_error: str = "fail"
    max_rows: int | None = None
    max_percent: int | None = None


class ScoreWork(_Struct, frozen=True, kw_only=True):
    """Score all records of the input once; any number of runners may do it together.

    job: the uid of the object. shard_bytes: about how large a part of the output becomes. min_shards: cut smaller
    rather than into fewer, so that all runners have something to do. batch_rows: put into one call of the model.
    """

    job: str
    model: ModelWork
    input: InputWork
    output: OutputWork
    errors: ErrorsWork = ErrorsWork()
    batch_rows: int = 16_384
    threads: int = 1
    shard_bytes: int = 64 * 2**20
    min_shards: int = 1


class ArtifactWork(_Struct, frozen=True, kw_only=True):
    """The part of a program's output that becomes a Model. path: below OUTPUT_DIR, a file or folder."""

    name: str
    path: str
    format: str = ""


class RunWork(_Struct, frozen=True, kw_only=True):
    """Run a program to its end and commit what it left in OUTPUT_DIR, once.

    job: the uid of the object, job_name: `<namespace>/<name>`. python: the interpreter whose folder comes first on
    PATH, "" for ours. directory: where it runs, relative to the project root. nodes: how many run together.
    checkpoint: a uri, handed on as CHECKPOINT_URI.
    """

    job: str
    job_name: str
    command: tuple[str, ...]
    python: str = ""
    directory: str = ""
    nodes: int = 1
    output: OutputWork | None = None
    checkpoint: str = ""
    artifact: ArtifactWork | None = None
    grace_seconds: float = 30.0


class SourceWork(_Struct, frozen=True, kw_only=True):
    """Records that arrive. uri: of a NATS server with JetStream, `nats://host:port`, `tls://host:port` or LOCAL_BROKER.

    stream: its name; subjects: filters, of one partition after `partition_subjects`. format: json (an object, or a list
    of them), arrow (an IPC stream) or raw. columns: fields that make up the rows of a model with one matrix as input.
    """

    uri: str
    stream: str
    subjects: tuple[str, ...]
    format: str = "json"
    columns: tuple[str, ...] = ()


class SinkWork(_Struct, frozen=True, kw_only=True):
    """Where scored records go: a subject of a stream of NATS, or a prefix of an object store (stream, subject: "").

    format: json, arrow or raw of messages; parquet, csv, jsonl or arrow of files; "" for the source's (parquet of
    files). keep: fields of the source that are written beside the model's outputs.
    """

    uri: str
    stream: str = ""
    subject: str = ""
    format: str = ""
    keep: tuple[str, ...] = ()


class BatchWork(_Struct, frozen=True, kw_only=True):
    """One commit: at most so many records, and so many seconds after the first of them was read."""

    rows: int = 256
    wait_seconds: float = 0.01


class StartWork(_Struct, frozen=True, kw_only=True):
    """Where a partition begins that has committed nothing yet. at: latest, earliest, time or sequence.

    time: seconds since 1970; sequence: the first record to score, as the broker counts them.
    """

    at: str = "latest"
    time: float = 0.0
    sequence: int = 0


class StreamWork(_Struct, frozen=True, kw_only=True):
    """Score records as they arrive, until SIGTERM. Any number of runners of one revision share the partitions.

    name: `<namespace>.<name>`, under which offsets and claims are kept. revision: runners of one revision count each
    other. dead_letter: a subject of the sink's stream, or "" to stop a partition at a record that cannot be scored.
    delivery: exactlyOnce or atLeastOnce. key_token: which token of a subject is the partition's number, from 1; 0:
    there is one partition. max_deliver: how often a record may end its runner before it is not tried again.
    begun: partitions that have committed something, so that a missing offset is a loss and no beginning.
    """

    name: str
    revision: str
    model: ModelWork
    source: SourceWork
    sink: SinkWork
    dead_letter: str = ""
    delivery: str = "atLeastOnce"
    partitions: int = 1
    key_token: int = 0
    batch: BatchWork = BatchWork()
    max_deliver: int = 5
    start: StartWork = StartWork()
    begun: tuple[int, ...] = ()
    threads: int = 1
    drain_seconds: float = 30.0


class CleanWork(_Struct, frozen=True, kw_only=True):
    """Remove what a stream that is gone has left at its broker: offsets, claims, durable consumers. What it has
    scored stays."""

    stream: StreamWork


class WorkSpec(_Struct, frozen=True, kw_only=True):
    """Exactly one of serve, prepare, score, run, stream and clean is set. The version is always written out, recorded
    specs included."""

    version: int = msgspec.field(default_factory=lambda: VERSION)  # unlike a plain default never left out
    serve: ServeWork | None = None
    prepare: PrepareWork | None = None
    score: ScoreWork | None = None
    run: RunWork | None = None
    stream: StreamWork | None = None
    clean: CleanWork | None = None


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
    if sum(getattr(work, part) is not None for part in PARTS) != 1:
        raise UserError(f"the WorkSpec must set exactly one of {', '.join(PARTS)}")
    return work


def partition_subjects(subjects: tuple[str, ...], key_token: int, partition: int) -> tuple[str, ...]:
    """The filters of one partition: `payments.in.*.>` with token 3 and partition 2 -> `payments.in.2.>`.

    With key_token 0 there is one partition, and the filters are left as they are.
    """
    if not key_token:
        return subjects
    found = []
    for subject in subjects:
        tokens = subject.split(".")
        tokens[key_token - 1] = str(partition)
        found.append(".".join(tokens))
    return tuple(found)


class _Versioned(msgspec.Struct):
    version: int
