"""Report: what a process of the runtime half answers to control. At most 4 KiB of JSON; not trusted.

`{"version": 1, "serve": {...}}`, with `prepare`, `job`, `stream`, `clean` or `failure` in place of `serve`. A process
replaces its report file atomically; on Kubernetes the same bytes are the container's termination message. The schema
is `spec/report.schema.json`.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

from modelyard.base.errors import UserError
from modelyard.wire.work import TensorSpec

VERSION = 1
PARTS = ("serve", "prepare", "job", "stream", "clean", "failure")
"""Of a report, of which exactly one is set."""
MAX_BYTES = 4096
_MAX_MESSAGE = 2048
_MOST_USED = 1e21
"""A million machines with a terabyte each, for thirty years: whatever is reported, sums stay numbers."""
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
"""In JSON. No API server stores it, and messages may quote what a model or a program said."""

Text = Annotated[str, msgspec.Meta(max_length=256)]


class _Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    pass


class ShadowReport(_Struct, frozen=True, kw_only=True):
    """What came of comparing answers to copies of requests with those of the revision that serves.

    That one is asked twice. compared: both answered. different: of these, by more than what the one that serves differs
    from itself; noisy: it does so. shadow_failed, serving_failed: only that one refused the request or failed;
    both_failed. skipped: chosen for comparison and not compared. The largest: differences of two numbers that should be
    equal, in themselves and relative to the larger one; noise: between the two answers of the one that serves.
    """

    compared: int = 0
    different: int = 0
    noisy: int = 0
    shadow_failed: int = 0
    serving_failed: int = 0
    both_failed: int = 0
    skipped: int = 0
    largest_difference: float = 0.0
    largest_relative_difference: float = 0.0
    largest_noise: float = 0.0
    largest_relative_noise: float = 0.0


class ServeReport(_Struct, frozen=True, kw_only=True):
    """A server's state: ready after every model answered its warm-up inference.

    shadow: of all its models, since it started; None while nothing was to be compared.
    """

    ready: bool = False
    models: tuple[Text, ...] = ()
    shadow: ShadowReport | None = None


class PrepareReport(_Struct, frozen=True, kw_only=True):
    """What prepare found out. size_bytes: of all files; format_version: of the library or format, "" if not known."""

    digest: Text
    format: Text
    format_version: Text = ""
    size_bytes: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


class Metric(_Struct, frozen=True, kw_only=True):
    """A number that a program tells about itself."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    value: float


class JobReport(_Struct, frozen=True, kw_only=True):
    """How far a job is, derived from what was committed; of the whole run, not of one runner.

    run: the number of the run within its output, 0 before there is one. done: the run is closed. already: by an
    earlier job with the same inputs. shards: planned; committed. rows: committed, without error_rows; total_rows: of
    the input, 0 if not known yet. percent, metrics: what a program says. output: where results are; errors: where
    dead letters are. digest, format: of the artifact that becomes a Model. note: what happens now, for people.
    """

    run: int = 0
    done: bool = False
    already: bool = False
    shards: int = 0
    committed: int = 0
    rows: int = 0
    error_rows: int = 0
    total_rows: int = 0
    rows_per_second: float = 0.0
    eta_seconds: float | None = None
    percent: int | None = None
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(max_length=16)] = ()
    output: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    errors: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    digest: Text = ""
    format: Text = ""
    note: Text = ""


class PartitionReport(_Struct, frozen=True, kw_only=True):
    """One partition that a runner holds. committed: the position after which it goes on, None before it has begun.

    lag: messages that wait, None if not known.
    """

    number: int
    committed: int | None = None
    lag: int | None = None


class StreamReport(_Struct, frozen=True, kw_only=True):
    """A runner of a stream. ready: its model is loaded and it could work, also where others hold all partitions.

    connected: to source and sink. records (with dead letters), dead_letters, expired: of the partitions that it holds,
    since they began where offsets are committed with them, else since this process started. records_per_second: lately;
    latency_seconds: between a record's arrival at the source and its commit, the median lately.
    problem: what keeps it, or one of its partitions, from working.
    """

    ready: bool = False
    connected: bool = False
    partitions: Annotated[tuple[PartitionReport, ...], msgspec.Meta(max_length=32)] = ()
    records: int = 0
    dead_letters: int = 0
    expired: int = 0
    records_per_second: float = 0.0
    latency_seconds: float | None = None
    problem: "Failure | None" = None


class CleanReport(_Struct, frozen=True, kw_only=True):
    """Nothing is left of a stream."""

    done: bool = False


class Failure(_Struct, frozen=True, kw_only=True):
    """Why the work cannot be done. reason: a `base.conditions.Reason`. retry: the same attempt may succeed later."""

    reason: Text
    message: Annotated[str, msgspec.Meta(max_length=_MAX_MESSAGE)]
    retry: bool = False


class UsageReport(_Struct, frozen=True, kw_only=True):
    """What a process and those that it started have used since it began."""

    cpu_seconds: Annotated[float, msgspec.Meta(ge=0, le=_MOST_USED)] = 0.0
    memory_byte_seconds: Annotated[float, msgspec.Meta(ge=0, le=_MOST_USED)] = 0.0


class Report(_Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Exactly one of serve, prepare, job, stream, clean and failure is set. usage: where its driver cannot measure."""

    version: int = VERSION
    serve: ServeReport | None = None
    prepare: PrepareReport | None = None
    job: JobReport | None = None
    stream: StreamReport | None = None
    clean: CleanReport | None = None
    failure: Failure | None = None
    usage: UsageReport | msgspec.UnsetType = msgspec.UNSET


def together(shadows: Iterable[ShadowReport]) -> ShadowReport:
    """Counts are added up; of the largest the largest is taken."""
    whole: dict[str, Any] = {}
    for each in shadows:
        for name, value in msgspec.structs.asdict(each).items():
            before = whole.get(name, 0)
            whole[name] = max(before, value) if name.startswith("largest_") else before + value
    return ShadowReport(**whole)


def failure(reason: str, message: str, *, retry: bool = False) -> Report:
    """A failure whose message is cut to what a report may hold."""
    if len(message) > _MAX_MESSAGE:
        message = message[: _MAX_MESSAGE - 4] + " ..."
    return Report(failure=Failure(reason=reason, message=message, retry=retry))


def encode(report: Report) -> bytes:
    """JSON of at most MAX_BYTES; raises UserError if the report is larger (a signature of very many columns)."""
    data = msgspec.json.encode(report)
    if report.failure is not None:
        while len(data) > MAX_BYTES:  # multi-byte characters
            told = report.failure
            report = failure(told.reason, told.message[: len(told.message) * 3 // 4] + " ...", retry=told.retry)
            data = msgspec.json.encode(report)
    if len(data) > MAX_BYTES:
        raise UserError(f"the report has {len(data)} bytes, at most {MAX_BYTES} are read: too many inputs and outputs")
    return data


def decode(data: bytes) -> Report:
    """Raise UserError on anything but a Report: the process that wrote it runs untrusted code."""
    if len(data) > MAX_BYTES:
        raise UserError(f"the report has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        report = msgspec.json.decode(_NUL.sub(rb"\1\\ufffd", data), type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the report is not valid: {error}") from error
    if report.version != VERSION:
        raise UserError(f"report version {report.version} is not understood; this release reads version {VERSION}")
    if sum(getattr(report, part) is not None for part in PARTS) != 1:
        raise UserError(f"the report must set exactly one of {', '.join(PARTS)}")
    return report
