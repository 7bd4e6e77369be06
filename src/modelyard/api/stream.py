"""ModelStream: score records as they arrive, continuously; exactly once where that is asked for."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from modelyard.api import API_VERSION
from modelyard.api.fields import (
    MAX_URI,
    Conditions,
    DateTime,
    Digest,
    Duration,
    Env,
    Generation,
    Metadata,
    Name,
    Part,
    Resources,
    keyed_by,
    rules,
)
from modelyard.api.pod import PodTemplate, ServiceAccountName
from modelyard.api.service import MAX_NAME, ModelReference

STREAM_NAME_RULES = (
    (
        f"self.metadata.name.size() <= {MAX_NAME}",
        f"metadata.name is at most {MAX_NAME} characters, because revisions and runners are named after it",
    ),
    ("!self.metadata.name.contains('.')", "metadata.name must not contain dots: offsets are kept under it"),
)
MAX_PARTITIONS = 32
_ANOTHER = (
    "cannot be changed: a stream keeps its offsets by name; apply a ModelStream of another name to replay or to read "
    "elsewhere"
)
_FIXED = rules(("self == oldSelf", _ANOTHER))
_BROKER = r"^(nats|tls)://([A-Za-z0-9][-A-Za-z0-9._]*|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?$"
_SPELLED = "nats://host:port, tls://host:port or nats://local; keys belong into the Secret that credentials names"
_TOKEN = r"[!-)+\-/-=?-~]+"  # noqa: S105  of a subject: what NATS takes, without blanks, dots and wildcards
SUBJECT_PATTERN = rf"^{_TOKEN}(\.{_TOKEN})*$"
FILTER_PATTERN = rf"^(>|({_TOKEN}|\*)(\.({_TOKEN}|\*))*(\.>)?)$"
STREAM_PATTERN = r"^[-A-Za-z0-9_]+$"

Long = Annotated[int, Field(json_schema_extra={"format": "int64"})]
_Count = Annotated[int, Field(json_schema_extra={"format": "int32"})]
_Columns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(min_length=1, max_length=4096)
]
_StreamName = Annotated[str, Field(pattern=STREAM_PATTERN, max_length=255)]
_Subject = Annotated[str, Field(pattern=SUBJECT_PATTERN, max_length=255)]
_Uri = Annotated[str, Field(min_length=1, max_length=MAX_URI)]
_SourceUri = Annotated[
    _Uri,
    Field(
        json_schema_extra=rules(
            ("self == oldSelf", _ANOTHER),
            (f"!self.matches('^(nats|tls)://') || self.matches('{_BROKER}')", f"expected {_SPELLED}"),
            ("self.contains('://')", f"expected {_SPELLED}"),
        )
    ),
]
_SinkUri = Annotated[
    _Uri,
    Field(
        json_schema_extra=rules(
            ("self == oldSelf", _ANOTHER),
            (
                f"!self.matches('^(nats|tls)://') || self.matches('{_BROKER}')",
                f"expected {_SPELLED}; or a folder or prefix: a path, file://, s3://, gs:// or az://",
            ),
        )
    ),
]


class StreamSource(Part):
    """Records that arrive."""

    uri: _SourceUri
    """A NATS server with JetStream: nats://host:port, tls://host:port, or nats://local for one that is started on this
    machine. Cannot be changed."""
    stream: Annotated[_StreamName, Field(json_schema_extra=_FIXED)]
    """Stream of that server. It is made where that is allowed. Cannot be changed."""
    subjects: Annotated[
        tuple[Annotated[str, Field(pattern=FILTER_PATTERN, max_length=255)], ...],
        Field(min_length=1, max_length=16, json_schema_extra=_FIXED),
    ]
    """Which of its subjects are scored; * stands for one token, > for the rest. Cannot be changed."""
    format: Literal["json", "arrow", "raw"] = "json"
    """What a message holds. json: a record, or a list of them; arrow: an Arrow IPC stream; raw: bytes as they are."""
    columns: _Columns | None = None
    """Fields that the model reads. For a model with one matrix as input, in the order of its columns."""
    credentials: Name | None = None
    """Secret in the same namespace with what the server asks for: user and password, token, nkey, creds, or
    certificates."""


class StreamSink(Part):
    """Where scored records go."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.uri.matches('^(nats|tls)://') == has(self.stream)", "stream goes with nats:// and tls://"),
            ("has(self.stream) == has(self.subject)", "set stream and subject, or neither for a folder or prefix"),
            (
                "!has(self.format) || self.format == 'arrow' || "
                "(self.format in ['json', 'raw']) == self.uri.matches('^(nats|tls)://')",
                "format is json, arrow or raw for messages, and parquet, csv, jsonl or arrow for files",
            ),
            (
                "has(self.format) == has(oldSelf.format) && (!has(self.format) || self.format == oldSelf.format)",
                f"format {_ANOTHER}",
            ),
        )
    )

    uri: _SinkUri
    """A NATS server with JetStream as of the source, or a folder or prefix of its own for files: a path, file://,
    s3://, gs:// or az://. Cannot be changed."""
    stream: Annotated[_StreamName, Field(json_schema_extra=_FIXED)] | None = None
    """Stream for the scored records; with exactlyOnce the offsets lie there, too. Made where that is allowed. Cannot be
    changed."""
    subject: Annotated[_Subject, Field(json_schema_extra=_FIXED)] | None = None
    """Subject of the scored records. Cannot be changed."""
    format: Literal["json", "arrow", "raw", "parquet", "csv", "jsonl"] | None = None
    """Of messages json, arrow or raw, by default the source's; of files parquet, csv, jsonl or arrow, by default
    parquet. Cannot be changed."""
    keep: _Columns | None = None
    """Fields of the source that are written beside the model's outputs."""
    credentials: Name | None = None
    """Secret in the same namespace with what the server asks for, or with the keys of the store."""


class DeadLetter(Part):
    """Where records go that cannot be scored, with the reason, in the same commit."""

    subject: _Subject | None = None
    """Subject of the sink's stream. Files have none: dead letters lie beside them."""


class StreamKey(Part):
    """Where a subject says which partition its records belong to."""

    token: Annotated[int, Field(ge=1, le=64)]
    """Token of the subject, from 1, that is the number of the partition, from 0. In source.subjects it is *."""


class StreamBatch(Part):
    """What is scored and committed at once."""

    rows: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Most records; 256 by default, 100000 for files. At most 999 for messages with exactlyOnce, 10000 without."""
    wait: Duration | None = None
    """Longest time that the first record waits for others; 10ms by default, 10s for files. At most 10s for messages, 1h
    for files."""


class StreamStart(Part):
    """Where a stream begins that has committed nothing yet."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.from), has(self.time), has(self.sequence)].filter(x, x).size() == 1",
                "set exactly one of from, time and sequence",
            )
        )
    )

    from_: Annotated[Literal["latest", "earliest"] | None, Field(alias="from")] = None
    """latest: what arrives from then on. earliest: everything that the source still has."""
    time: Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})] | None = None
    """What arrived then or later."""
    sequence: Annotated[int, Field(ge=1, le=2**53, json_schema_extra={"format": "int64"})] | None = None
    """The first record to score, as the source counts its messages."""


_LATEST = StreamStart(from_="latest")
_DELIVERY = "(has({0}.delivery) ? {0}.delivery : has({0}.sink.stream) ? 'atLeastOnce' : 'exactlyOnce')"
_NOW, _BEFORE = _DELIVERY.format("self"), _DELIVERY.format("oldSelf")


class ModelStreamSpec(Part):
    """What to score and where results go. What decides which records are scored cannot be changed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.key) == (self.partitions > 1)",
                "key goes with partitions: set key.token for more than one, and leave it out for one",
            ),
            (
                f"{_NOW} == 'exactlyOnce' || has(self.sink.stream)",
                "files are always written exactly once: leave delivery out, or set it to exactlyOnce",
            ),
            (
                "!has(self.deadLetter) || has(self.deadLetter.subject) == has(self.sink.stream)",
                "deadLetter.subject names a subject of the sink's stream; for files set deadLetter: {}",
            ),
            (
                "!has(self.deadLetter) || !has(self.deadLetter.subject) || !has(self.sink.subject) || "
                "self.deadLetter.subject != self.sink.subject",
                "deadLetter.subject must differ from sink.subject",
            ),
            (
                "!has(self.batch) || !has(self.batch.rows) || !has(self.sink.stream) || "
                f"self.batch.rows <= ({_NOW} == 'exactlyOnce' ? 999 : 10000)",
                "batch.rows is at most 999 for messages with exactlyOnce, because one commit holds 1000, and at most "
                "10000 with atLeastOnce",
            ),
            (
                "!has(self.batch) || !has(self.batch.wait) || "
                "duration(self.batch.wait) <= duration(has(self.sink.stream) ? '10s' : '1h')",
                "batch.wait is at most 10s for messages, and at most 1h for files",
            ),
            (f"{_NOW} == {_BEFORE}", f"delivery {_ANOTHER}"),
        )
    )

    model: ModelReference
    """The model that scores. A change makes a new revision, which takes over when it is ready."""
    runtime: Name | None = None
    """Runtime in the same namespace that runs the model; by default the built-in way for its format."""
    source: StreamSource
    """Records that arrive."""
    sink: StreamSink
    """Where scored records go."""
    dead_letter: DeadLetter | None = None
    """Where records go that cannot be scored. Without it the first one stops its partition."""
    delivery: Literal["atLeastOnce", "exactlyOnce"] | None = None
    """atLeastOnce, the default for messages: none is lost, some may be scored twice after a failure. exactlyOnce: each
    is scored once, whatever happens; files are always written so. Cannot be changed."""
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS, json_schema_extra=_FIXED)] = 1
    """Shares of the records, each in order and by one runner at a time. Cannot be changed."""
    key: Annotated[StreamKey, Field(json_schema_extra=_FIXED)] | None = None
    """Where a subject says which partition its records belong to. Cannot be changed."""
    batch: StreamBatch | None = None
    """What is scored and committed at once."""
    max_deliver: Annotated[int, Field(ge=1, le=1000)] = 5
    """How often a record may end the process that scores it before it counts as one that cannot be scored."""
    replicas: Annotated[int, Field(ge=0, le=MAX_PARTITIONS)] = 1
    """Runners that share the partitions; those without one stand by. With 0 nothing is scored."""
    start: Annotated[StreamStart, Field(json_schema_extra={**_FIXED, "default": {"from": "latest"}})] = _LATEST
    """Where it begins, once. Cannot be changed."""
    resources: Resources | None = None
    """Resources of one runner; the Runtime's by default."""
    env: Env | None = None
    """Environment variables of the model's process, besides the Runtime's."""
    service_account_name: ServiceAccountName | None = None
    """ServiceAccount of the pods on Kubernetes, by default that of the Model. Its cloud identity opens stores where
    credentials hold no keys; no token of the API is mounted. Without effect on one machine."""
    pod_template: PodTemplate | None = None
    """Overlay over the pods on Kubernetes. A change makes a new revision."""
    suspend: bool = False
    """Stop the runners; what is committed stays, and scoring goes on from there when this is false again."""


class PartitionStatus(Part):
    """One partition."""

    number: _Count
    """Its number, from 0."""
    committed: Long | None = None
    """Position in the source after which it goes on; it has begun when there is one."""
    lag: Long | None = None
    """Messages that wait."""
    runner: Annotated[str, Field(max_length=253)] | None = None
    """Who scores it."""
    free_since: DateTime | None = None
    """When it was given up, while nobody has it again."""


class Counted(Part):
    """What of a runner's own counts is part of the sums, where no offsets are committed with the records."""

    runner: Annotated[str, Field(max_length=253)]
    """The runner."""
    since: DateTime
    """When its process started."""
    records: Long
    """Records."""
    dead_letters: Long
    """Records that could not be scored."""
    expired: Long
    """Messages that left the source before they were read."""


class ModelStreamStatus(Part):
    """How the stream does."""

    observed_generation: Generation | None = None
    """metadata.generation that this status was computed from."""
    latest_created_revision: Annotated[str, Field(max_length=253)] | None = None
    """Newest revision."""
    latest_ready_revision: Annotated[str, Field(max_length=253)] | None = None
    """Newest revision that has been ready."""
    digest: Digest | None = None
    """Content of the model in the newest revision that has been ready."""
    delivery: Annotated[str, Field(max_length=32)] | None = None
    """atLeastOnce or exactlyOnce."""
    replicas: _Count | None = None
    """Runners that run or start, of all revisions."""
    ready_replicas: _Count | None = None
    """Runners that score, or could."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of the runners, for autoscalers."""
    partitions: Annotated[
        tuple[PartitionStatus, ...] | None, Field(max_length=MAX_PARTITIONS, json_schema_extra=keyed_by("number"))
    ] = None
    """Partitions that have begun or are being scored."""
    lag: Long | None = None
    """Messages that wait, where that is known of every partition."""
    records: Long | None = None
    """Records that were scored or went to the dead letters. With atLeastOnce some may be counted twice, or missing."""
    dead_letters: Long | None = None
    """Records that could not be scored."""
    expired: Long | None = None
    """Messages that left the source before they were read."""
    records_per_second: Long | None = None
    """Of all runners together, lately."""
    latency_milliseconds: Long | None = None
    """Between a record's arrival at the source and its commit: the median lately, of the slowest runner."""
    counted: Annotated[
        tuple[Counted, ...] | None, Field(max_length=4 * MAX_PARTITIONS, json_schema_extra=keyed_by("runner"))
    ] = None
    """What of the runners' own counts is part of the sums."""
    conditions: Conditions | None = None
    """Ready: every partition is scored by the declared spec. Connected, ModelReady, Suspended, RecordsExpired; Cleaned
    while it is deleted."""


class ModelStream(Part):
    """A ModelStream scores records as they arrive, and writes what it makes of them to a stream or to files."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelStream"] = "ModelStream"
    metadata: Metadata
    spec: ModelStreamSpec
    status: ModelStreamStatus = ModelStreamStatus()
