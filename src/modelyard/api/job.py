"""ModelJob: score a data set with a model, or run a program, to its end; results are committed exactly once."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from modelyard.api import API_VERSION
from modelyard.api.fields import (
    MAX_URI,
    Conditions,
    DateTime,
    Digest,
    Env,
    Generation,
    Metadata,
    Name,
    Part,
    Resources,
    Trust,
    Uri,
    Word,
    keyed_by,
    rules,
)
from modelyard.api.pod import PodTemplate, ServiceAccountName
from modelyard.api.service import MAX_NAME, ModelReference

JOB_NAME_RULES = (
    (
        f"self.metadata.name.size() <= {MAX_NAME}",
        f"metadata.name is at most {MAX_NAME} characters, because runners are named after it",
    ),
    ("!self.metadata.name.contains('.')", "metadata.name must not contain dots"),
)
_ANOTHER = "cannot be changed: a job runs once; apply a job of another name"
_ONCE = rules(("self == oldSelf", _ANOTHER))
_Columns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=253)], ...], Field(min_length=1, max_length=4096)
]
Long = Annotated[int, Field(json_schema_extra={"format": "int64"})]
RecordFormat = Literal["parquet", "csv", "jsonl", "arrow"]


class JobInput(Part):
    """Records to score."""

    uri: Uri
    """One file or object, or a folder or prefix of them: a path, file://, s3://, gs:// or az://. Names that begin
    with a dot or an underscore are left out."""
    format: Literal["parquet", "csv", "jsonl", "arrow", "images"] | None = None
    """Format of the files; told by their names when left out."""
    columns: _Columns | None = None
    """Columns that the model reads. For a model with one matrix as input, in the order of its columns; by default all
    that are not kept, if their number fits."""
    credentials: Name | None = None
    """Secret in the same namespace with the keys of the store, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""


class JobOutput(Part):
    """Where scored records go."""

    uri: Uri
    """A folder or prefix of its own: a path, file://, s3://, gs:// or az://."""
    format: RecordFormat | None = None
    """Format of the parts; that of the input by default, parquet for images."""
    keep: _Columns | None = None
    """Columns of the input that are written beside the model's outputs."""
    mode: Literal["create", "overwrite", "append"] = "create"
    """create: nothing may lie there yet. append: beside the results of earlier jobs. overwrite: in their place."""
    credentials: Name | None = None
    """Secret in the same namespace with the keys of the store."""


class RowErrors(Part):
    """What becomes of rows that cannot be scored."""

    on_error: Literal["fail", "deadLetter", "skip"] = "fail"
    """fail: the first one fails the job. deadLetter: they are written beside the output, with code and message. skip:
    they are only counted."""
    max_rows: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """More such rows fail the job."""
    max_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """More such rows in a hundred fail the job."""


class Score(Part):
    """Score every record of the input once."""

    model: ModelReference
    """The model. Its content when the job starts is what scores all records."""
    runtime: Name | None = None
    """Runtime in the same namespace that runs the model; by default the built-in way for its format."""
    input: JobInput
    """Records to score."""
    output: JobOutput
    """Where scored records go."""
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 16_384
    """Most rows in one call of the model; fewer where they are large, so that a call takes about 32 MiB of input."""
    errors: RowErrors = RowErrors()
    """What becomes of rows that cannot be scored."""


class Environment(Part):
    """What a program runs in."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.python), has(self.requirements), has(self.lock), has(self.image)].filter(x, x).size() <= 1",
                "set only one of python, requirements, lock and image",
            )
        )
    )

    python: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Interpreter of a virtual environment on this machine, for example .venv/bin/python; the one that runs
    Modelyard by default."""
    requirements: Annotated[str, Field(max_length=65536)] | None = None
    """Packages to install. Not supported yet."""
    lock: Annotated[str, Field(max_length=1024)] | None = None
    """Lock file to install from. Not supported yet."""
    image: Annotated[str, Field(max_length=1024)] | None = None
    """Container image in which the program runs, on Kubernetes; for example ghcr.io/acme/train:1.4. Nothing of
    Modelyard needs to be in it. Not supported on one machine."""


class RunOutput(Part):
    """Where the files that a program leaves in OUTPUT_DIR are committed to."""

    uri: Uri
    """A folder or prefix of its own: a path, file://, s3://, gs:// or az://."""
    mode: Literal["create", "overwrite"] = "create"
    """create: nothing may lie there yet. overwrite: in place of what an earlier job committed there."""
    credentials: Name | None = None
    """Secret in the same namespace with the keys of the store. The program does not see them."""


class Checkpoint(Part):
    """Where a program keeps what it needs to go on after an interruption."""

    uri: Uri
    """Handed to the program as CHECKPOINT_URI; RESUME is 1 when something lies there."""
    credentials: Name | None = None
    """Secret with which it is found out whether something lies there. The program gets keys of its own through env."""


class OutputModel(Part):
    """The Model that is made of a program's output."""

    name: Name
    """Name of the new Model. One that exists is never replaced."""
    path: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$", max_length=512)]
    """File or folder below OUTPUT_DIR that is the artifact."""
    format: Word | None = None
    """As Model.spec.format."""
    trust: Trust | None = None
    """As Model.spec.trust."""


class Run(Part):
    """Run a program to its end."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!has(self.outputModel) || has(self.output)", "outputModel needs output, where its artifact is kept"),
            (
                f"!has(self.outputModel) || !has(self.output) || self.output.uri.size() + self.outputModel.path.size() "
                f"< {MAX_URI}",
                f"output.uri and outputModel.path together are at most {MAX_URI - 1} characters",
            ),
        )
    )

    command: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(min_length=1, max_length=256)
    ]
    """Program and arguments. It finds OUTPUT_DIR, PROGRESS_FILE and, of several nodes, RANK, WORLD_SIZE, MASTER_ADDR
    and MASTER_PORT in its environment."""
    working_dir: Annotated[str, Field(max_length=1024)] | None = None
    """Folder to run in; a relative one belongs to the project root (modelyard apply: to the manifest's folder)."""
    environment: Environment | None = None
    """What it runs in."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that run together. When one fails all are replaced; the output of rank 0 is committed."""
    output: RunOutput | None = None
    """Where the files that it leaves in OUTPUT_DIR are committed to, when all nodes have ended well."""
    checkpoint: Checkpoint | None = None
    """Where it keeps what it needs to go on after an interruption."""
    output_model: OutputModel | None = None
    """Make a Model of the output."""


def _recorded(name: str) -> tuple[str, str]:
    """An optional field that is part of what is recorded: neither set, nor removed, nor changed later."""
    same = f"!has(self.{name}) || self.{name} == oldSelf.{name}"
    return f"has(self.{name}) == has(oldSelf.{name}) && ({same})", f"{name} {_ANOTHER}"


class ModelJobSpec(Part):
    """What to do, which cannot be changed, and how much of it at once and how long, which can."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.score) != has(self.run)", "set exactly one of score and run"),
            (
                "has(self.score) == has(oldSelf.score)",
                "score and run cannot be exchanged: a job runs once; apply a job of another name",
            ),
            ("!has(self.run) || self.parallelism == 1", "parallelism goes with score; for run set run.nodes"),
            _recorded("resources"),
            _recorded("env"),
            _recorded("serviceAccountName"),
            ("self.priority == oldSelf.priority", f"priority {_ANOTHER}"),
        )
    )

    score: Annotated[Score, Field(json_schema_extra=_ONCE)] | None = None
    """Score a data set with a model."""
    run: Annotated[Run, Field(json_schema_extra=_ONCE)] | None = None
    """Run a program: training, preparing data."""
    parallelism: Annotated[int, Field(ge=1, le=1000)] = 1
    """Runners that share the work; may be changed while they work."""
    backoff_limit: Annotated[int, Field(ge=0, le=1000)] = 6
    """Failures of runners after which the job has failed."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Seconds from the start, or from being resumed, after which the job has failed."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Delete the object so many seconds after it ended; results stay. By default it stays."""
    resources: Resources | None = None
    """Resources of one runner. Cannot be changed."""
    env: Env | None = None
    """Environment variables of the model's process, or of the program. Cannot be changed."""
    service_account_name: ServiceAccountName | None = None
    """ServiceAccount of the pods on Kubernetes, by default that of the Model. Its cloud identity opens stores where
    credentials hold no keys; no token of the API is mounted. Without effect on one machine. Cannot be changed."""
    pod_template: PodTemplate | None = None
    """Overlay over the pods on Kubernetes. It is recorded when the job starts; a later change has no effect."""
    suspend: bool = False
    """Stop the runners; what is committed stays, and the rest is done when this is false again."""
    priority: Literal["low", "normal", "high"] = "normal"
    """Where there is not room for all, jobs of lower priority make room; services come before all jobs. Cannot be
    changed."""
    queue: Name | None = None
    """Kueue queue (LocalQueue) on Kubernetes, which decides when the pods start. Without effect on one machine."""


class ShardCounts(Part):
    """Shares of the work."""

    planned: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """All."""
    committed: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Those whose results are visible."""


class Metric(Part):
    """A number that the program tells about itself."""

    name: Annotated[str, Field(max_length=64)]
    """What it measures."""
    value: Annotated[str, Field(max_length=32)]
    """The number as text."""


class Failures(Part):
    """How failures are counted over restarts of the server."""

    since: DateTime
    """Start of the runners that are counted now."""
    before: Annotated[int, Field(json_schema_extra={"format": "int32"})]
    """Failures of earlier ones."""


class ModelJobStatus(Part):
    """How far the job is."""

    observed_generation: Generation | None = None
    """metadata.generation that this status was computed from."""
    start_time: DateTime | None = None
    """When it was first started, or last resumed."""
    completion_time: DateTime | None = None
    """When it ended."""
    run: Long | None = None
    """Number of the run at its output: parts are named part-<run>-<shard>."""
    output: Annotated[str, Field(max_length=2048)] | None = None
    """Where results are."""
    dead_letters: Annotated[str, Field(max_length=2048)] | None = None
    """Where rows are that could not be scored."""
    digest: Digest | None = None
    """Content of the model that scores, or of the output model."""
    output_model: Annotated[str, Field(max_length=63)] | None = None
    """Model that was made of the output."""
    shards: ShardCounts | None = None
    """Shares of the work."""
    rows: Long | None = None
    """Rows that are scored and visible."""
    error_rows: Long | None = None
    """Rows that could not be scored."""
    total_rows: Long | None = None
    """Rows of the input."""
    rows_per_second: Long | None = None
    """Of all runners together, lately."""
    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share that is done, by rows or as the program says."""
    estimated_remaining_seconds: Long | None = None
    """At the present pace."""
    metrics: Annotated[tuple[Metric, ...] | None, Field(max_length=16, json_schema_extra=keyed_by("name"))] = None
    """What the program tells about itself."""
    active: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """Runners that work."""
    failed: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """Failures of runners so far."""
    failures: Failures | None = None
    """How failures are counted over restarts of the server."""
    conditions: Conditions | None = None
    """Complete, Failed, Suspended; the message of Complete says how far it is, or why not."""


class ModelJob(Part):
    """A ModelJob scores a data set or runs a program, once, and commits its results exactly once."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelJob"] = "ModelJob"
    metadata: Metadata
    spec: ModelJobSpec
    status: ModelJobStatus = ModelJobStatus()
