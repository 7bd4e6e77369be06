"""Conditions and their reasons: one vocabulary for statuses, events, reports and `modelyard why`.

Source: Kubernetes API conventions, "Typical status properties".
"""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """Unknown means: not found out yet."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Every reason that Modelyard writes. `spec/conditions.md` is generated from this list."""

    # Things go well
    PREPARED = "Prepared"
    """The artifact was read, identified and stored under its digest."""
    SERVING = "Serving"
    """The latest revision answers requests."""
    ROUTED = "Routed"
    """The gateway acknowledged the route."""
    COMPLETE = "Complete"
    """The latest revision carries all traffic; nothing is in progress."""
    VALID = "Valid"
    """The object is consistent."""
    ENFORCED = "Enforced"
    """Every declared limit is enforced here."""
    COMPLETED = "Completed"
    """A job has done all its work; its results are committed."""
    ALREADY_DONE = "AlreadyDone"
    """An earlier job has committed the results of exactly this work; nothing was done again."""
    SCALED_TO_ZERO = "ScaledToZero"
    """`replicas: 0` was asked for; requests get 503."""

    FOLLOWING = "Following"
    """A stream's runners score what arrives."""
    CONNECTED = "Connected"
    """Runners reach the source and the sink."""
    CLEANED = "Cleaned"
    """Offsets and claims of a deleted stream were removed."""

    # Work in progress
    PREPARING = "Preparing"
    """The artifact is being read."""
    PROGRESSING = "Progressing"
    """A new revision starts; the old one, if any, keeps serving."""
    STARTING = "Starting"
    """Replicas were started and are not ready yet."""
    RUNNING = "Running"
    """A job works; the message says how far it is."""
    SUSPENDED = "Suspended"
    """`suspend: true` was asked for; what was committed stays, and the rest is done when it is resumed."""
    NOT_SUSPENDED = "NotSuspended"
    """`suspend` is not asked for."""
    PREEMPTED = "Preempted"
    """A runner made room for work of a higher priority; it goes on when there is room again."""
    WAITING_FOR_GATEWAY = "WaitingForGateway"
    """The gateway has not acknowledged the route yet."""

    # References
    MODEL_NOT_FOUND = "ModelNotFound"
    """No Model of that name in the namespace (objects may be applied in any order)."""
    MODEL_NOT_READY = "ModelNotReady"
    """The Model exists and is not ready; its own condition says why."""
    RUNTIME_NOT_FOUND = "RuntimeNotFound"
    """No Runtime of that name in the namespace."""
    RUNTIME_MISMATCH = "RuntimeMismatch"
    """The Runtime does not list the model's format."""
    REVISION_NOT_FOUND = "RevisionNotFound"
    """`spec.traffic` names a revision that is not there; the traffic stays as it is."""
    SECRET_NOT_FOUND = "SecretNotFound"
    """A Secret or key that `env` names does not exist."""

    INVALID = "Invalid"
    """The stored object cannot be read: it was written past the schema of this release."""

    # Artifacts
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    """Nothing at `uri`."""
    ARTIFACT_UNREADABLE = "ArtifactUnreadable"
    """The artifact exists and cannot be read."""
    ARTIFACT_INVALID = "ArtifactInvalid"
    """The bytes are truncated, damaged or not a model."""
    ARTIFACT_CHANGED = "ArtifactChanged"
    """The stored copy is gone or differs from its digest."""
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge"
    """The artifact exceeds the limit of size or files."""
    DIGEST_MISMATCH = "DigestMismatch"
    """The artifact is not the one that `digest` pins."""
    FORMAT_UNKNOWN = "FormatUnknown"
    """The format was not recognized, or nothing here runs it."""
    FORMAT_MISMATCH = "FormatMismatch"
    """The bytes are of another format than `format` says."""
    TRUST_REQUIRED = "TrustRequired"
    """Loading runs code from the artifact, or skips checks; `trust` must allow it."""
    ENVIRONMENT_MISSING = "EnvironmentMissing"
    """A package that the model needs is not installed."""
    SIGNATURE_MISMATCH = "SignatureMismatch"
    """The declared inputs or outputs differ from the artifact's own."""
    SAMPLE_MISSING = "SampleMissing"
    """The model has no signature and none was declared."""
    LOAD_FAILED = "LoadFailed"
    """The model's own code failed while loading."""
    WARMUP_FAILED = "WarmupFailed"
    """The model loaded and its first inference failed."""

    # Stores
    BUCKET_NOT_FOUND = "BucketNotFound"
    """The bucket or container of a uri does not exist."""
    ACCESS_DENIED = "AccessDenied"
    """The store refuses these credentials, or asks for some."""
    STORE_UNREACHABLE = "StoreUnreachable"
    """The store does not answer; it is tried again."""

    # Jobs
    INPUT_NOT_FOUND = "InputNotFound"
    """No object of the input's format at `input.uri`."""
    INPUT_INVALID = "InputInvalid"
    """An input is damaged or not of its format; the message says where."""
    INPUT_CHANGED = "InputChanged"
    """An input changed or went while the job was running."""
    SCHEMA_MISMATCH = "SchemaMismatch"
    """The columns of the input do not fit the model's signature."""
    OUTPUT_IN_USE = "OutputInUse"
    """Another job has begun to write to `output.uri` and has not finished."""
    OUTPUT_NOT_EMPTY = "OutputNotEmpty"
    """`mode: create` was asked for, and something lies at `output.uri` already."""
    OUTPUT_OVERTAKEN = "OutputOvertaken"
    """A later job took over `output.uri` with `mode: overwrite`."""
    OUTPUT_MISSING = "OutputMissing"
    """The program ended well and did not leave what was promised in OUTPUT_DIR."""
    OUTPUT_MODEL_EXISTS = "OutputModelExists"
    """A Model of the name in `outputModel` exists, and a job never replaces one."""
    PART_TOO_LARGE = "PartTooLarge"
    """One part of the output would exceed the limit of a single put."""
    ROW_FAILED = "RowFailed"
    """A row cannot be scored, and `onError: fail` is asked for."""
    ERROR_BUDGET_EXCEEDED = "ErrorBudgetExceeded"
    """More rows failed than `errors` allows."""
    SHARD_FAILED = "ShardFailed"
    """A part of the input ended every runner that tried it."""
    PROGRAM_FAILED = "ProgramFailed"
    """The program of a job ended with an error."""
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    """More runners failed than `backoffLimit` allows."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The job took longer than `activeDeadlineSeconds`."""

    # Streams
    BROKER_UNREACHABLE = "BrokerUnreachable"
    """The broker does not answer; it is tried again."""
    BROKER_REFUSED = "BrokerRefused"
    """The broker refuses these credentials, or what they may not do."""
    BROKER_FULL = "BrokerFull"
    """The broker has no room for more messages: its disk, or a limit of the stream or account."""
    STREAM_NOT_FOUND = "StreamNotFound"
    """The broker has no stream of that name, and it may not be made."""
    SUBJECT_NOT_FOUND = "SubjectNotFound"
    """The stream does not take a subject that is needed."""
    STREAM_UNSUITABLE = "StreamUnsuitable"
    """The stream lacks a setting that is needed; the message names it."""
    PARTITIONS_MISSING = "PartitionsMissing"
    """Subjects of the source carry no partition number; the message has the transform that writes it."""
    OFFSET_LOST = "OffsetLost"
    """The offset of a partition that had begun is gone; going on could score records twice."""
    SOURCE_REPLACED = "SourceReplaced"
    """The source is another stream than the one that the offset belongs to."""
    RECORDS_EXPIRED = "RecordsExpired"
    """Records left the source before they were read."""
    RECORD_FAILED = "RecordFailed"
    """A record cannot be scored, and there is no `deadLetter`."""
    CLEANING = "Cleaning"
    """Offsets and claims of a deleted stream are being removed."""
    PARTITIONS_WAITING = "PartitionsWaiting"
    """No runner has taken over some partitions yet."""
    CLEAN_FAILED = "CleanFailed"
    """What a deleted stream left at its broker could not be removed."""

    # Processes
    CRASHED = "Crashed"
    """A process ended by itself; it is started again with back-off."""
    STARTUP_TIMEOUT = "StartupTimeout"
    """A replica was not ready in time; it is started again with back-off."""
    UNSCHEDULABLE = "Unschedulable"
    """Nothing has enough free memory, CPU or GPUs, or is otherwise suitable; the message names what is missing."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """A container image cannot be had: its name, the registry or the pull secret is wrong."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A process used more than its memory limit and was killed; it is started again with back-off."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A quota or limit of the namespace forbids the pods."""
    POD_REFUSED = "PodRefused"
    """The cluster's admission refuses the pods; the message is its own."""
    OVERLAY_FORBIDDEN = "OverlayForbidden"
    """`podTemplate` asks for something that pods of models may not have; the message lists the fields."""
    LOCAL_PATH = "LocalPath"
    """A path of one machine means nothing here; `modelyard push PATH` uploads it and prints what to write."""
    DISK_FULL = "DiskFull"
    """No space left where Modelyard keeps its data."""
    UNSUPPORTED = "Unsupported"
    """A field selects something that this place cannot do."""
    NOT_ENFORCED = "NotEnforced"
    """Declared limits that this place does not enforce; the message lists their paths."""

    # Gateway
    ROUTE_REJECTED = "RouteRejected"
    """Envoy refused the configuration of this route; the previous one stays in force."""
    SETTINGS_APPLIED = "SettingsApplied"
    """The platform's settings are in force."""
    SETTINGS_INVALID = "SettingsInvalid"
    """The platform's settings, or a Secret that they need, cannot be used; the message says what holds instead."""
    ISSUER_UNREACHABLE = "IssuerUnreachable"
    """The keys of an issuer cannot be fetched; they are asked for again."""
    INTERNAL_ERROR = "InternalError"
    """A defect of Modelyard; the message says where to look."""

    # Access
    ISSUER_NOT_FOUND = "IssuerNotFound"
    """An AccessPolicy names an issuer that the platform's settings do not have; nobody is let in through that name."""
    SERVICE_NOT_FOUND = "ServiceNotFound"
    """An AccessPolicy names a service that does not exist (objects may be applied in any order)."""
    GROUP_NOT_FOUND = "GroupNotFound"
    """A rate limit is for a group that no issuer can name; it limits nobody."""
    TOO_MANY_LIMITS = "TooManyLimits"
    """More rate limits are written down for a service than it can have; those of older AccessPolicies count."""
    BELOW_FLOOR = "BelowFloor"
    """An AccessPolicy asks for less authentication than the platform's settings allow; the floor holds."""
    OPEN_TO_ANYBODY = "OpenToAnybody"
    """Callers need no token, and no role."""
    OPEN_TO_ANONYMOUS = "OpenToAnonymous"
    """Callers need no token, since roles allow system:anonymous or system:unauthenticated."""

    # Events about processes
    STARTED = "Started"
    """A replica became ready."""
    STOPPED = "Stopped"
    """A replica ended as asked."""
    MODEL_CREATED = "ModelCreated"
    """A job made a Model of its output."""
    REVISION_CREATED = "RevisionCreated"
    """A new revision was recorded."""
    TRAFFIC_SHIFTED = "TrafficShifted"
    """The gateway sends requests to another revision."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `status.conditions`, without the two fields that depend on the past."""

    type: str
    status: Status
    reason: Reason
    message: str = ""


class StampedCondition(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A condition as it is stored. last_transition_time: RFC 3339, when `status` last changed."""

    type: str
    status: Status
    reason: str
    message: str = ""
    observed_generation: int
    last_transition_time: str


def stamp(
    conditions: tuple[Condition, ...],
    previous: tuple[StampedCondition, ...],
    generation: int,
    timestamp: str,
) -> tuple[StampedCondition, ...]:
    """Add observedGeneration, and lastTransitionTime: kept where the status did not change."""
    before = {condition.type: condition for condition in previous}

    def since(condition: Condition) -> str:
        old = before.get(condition.type)
        return old.last_transition_time if old and old.status == condition.status else timestamp

    return tuple(
        StampedCondition(
            type=condition.type,
            status=condition.status,
            reason=condition.reason,
            message=condition.message,
            observed_generation=generation,
            last_transition_time=since(condition),
        )
        for condition in conditions
    )
