"""What to do about a reason. Messages name the details; these name the commands. Pure."""

from collections.abc import Mapping
from typing import Any

from modelyard.base.conditions import Reason
from modelyard.sdk import cluster_steps
from modelyard.sdk.case import Case

_SAVE = ("save a good model at {uri}, then: modelyard refresh {name}",)
_CORRECT_URI = "or correct the uri in the manifest, and apply it"
_OTHER_MODEL = "or declare a Model of another name for another uri"
_CORRECT = ("correct the manifest as said above, and apply it",)
_TRIED = ("modelyard logs {name}", "it is tried again by itself, with growing pauses")
_WAIT = ("wait a moment; what happens now: modelyard logs {name} -f",)
_APPLY = ("apply what is missing: the rest follows by itself",)
_NEXT: Mapping[str, tuple[str, ...]] = {
    Reason.ARTIFACT_NOT_FOUND: _SAVE,
    Reason.ARTIFACT_INVALID: _SAVE,
    Reason.ARTIFACT_UNREADABLE: _SAVE,
    Reason.ARTIFACT_CHANGED: _SAVE,
    Reason.DIGEST_MISMATCH: (
        "restore the pinned artifact at {uri}, then: modelyard refresh {name}",
        "or declare the new content as a new Model",
    ),
    Reason.TRUST_REQUIRED: _CORRECT,
    Reason.FORMAT_MISMATCH: _CORRECT,
    Reason.FORMAT_UNKNOWN: (
        "save a model of a known format at {uri}, then: modelyard refresh {name}",
        "or name its format in the manifest, and apply it",
    ),
    Reason.SIGNATURE_MISMATCH: _CORRECT,
    Reason.SAMPLE_MISSING: _CORRECT,
    Reason.RUNTIME_MISMATCH: _CORRECT,
    Reason.UNSUPPORTED: _CORRECT,
    Reason.INVALID: _CORRECT,
    Reason.ARTIFACT_TOO_LARGE: _SAVE,
    Reason.UNSCHEDULABLE: (
        "correct spec.resources in the manifest, and apply it",
        "or make room; what else runs here: modelyard get modelservices -A",
    ),
    Reason.DISK_FULL: ("make room on that disk: the rest follows by itself",),
    Reason.ENVIRONMENT_MISSING: ("install what is missing where 'modelyard up' runs, then: modelyard refresh {name}",),
    Reason.CRASHED: _TRIED,
    Reason.LOAD_FAILED: _TRIED,
    Reason.WARMUP_FAILED: _TRIED,
    Reason.STARTUP_TIMEOUT: _TRIED,
    Reason.PREPARING: _WAIT,
    Reason.STARTING: _WAIT,
    Reason.PROGRESSING: _WAIT,
    Reason.WAITING_FOR_GATEWAY: _WAIT,
    Reason.MODEL_NOT_FOUND: _APPLY,
    Reason.RUNTIME_NOT_FOUND: _APPLY,
    Reason.SECRET_NOT_FOUND: _APPLY,
    Reason.REVISION_NOT_FOUND: (
        "correct spec.traffic in the manifest, and apply it; the revisions: modelyard describe modelservice {name}",
    ),
    Reason.ACCESS_DENIED: (
        "correct the Secret that spec.credentials names, or the rights of the ServiceAccount, "
        "then: modelyard refresh {name}",
    ),
    Reason.BUCKET_NOT_FOUND: _SAVE,
    Reason.STORE_UNREACHABLE: _TRIED,
    Reason.ISSUER_NOT_FOUND: (
        "correct spec.issuers in the manifest, and apply it",
        "or add the issuer to the platform's settings: ConfigMap modelyard in namespace modelyard-system",
    ),
    Reason.SERVICE_NOT_FOUND: (
        "apply the service that is missing, or correct spec.services: modelyard get modelservices",
    ),
    Reason.GROUP_NOT_FOUND: ("correct spec.rateLimits in the manifest, and apply it",),
    Reason.TOO_MANY_LIMITS: (
        "have fewer limits for a service, in this policy or in others: modelyard get accesspolicies",
    ),
    Reason.BELOW_FLOOR: (
        "correct spec.authentication in the manifest, and apply it",
        "or lower gateway.floor in the platform's settings: ConfigMap modelyard in namespace modelyard-system",
    ),
    Reason.OPEN_TO_ANYBODY: ("if that is not meant: set spec.authentication to required, and apply it",),
    Reason.OPEN_TO_ANONYMOUS: (
        "if that is not meant: set spec.authentication to required, and apply it",
        "or delete the binding to system:anonymous or system:unauthenticated: kubectl get rolebindings",
    ),
}
"""For services, models and policies."""
_LOGS = "what was written: modelyard logs {name}"
_OUTPUT_OF_ITS_OWN = "give each job an output.uri of its own"
_RETRIED = "it is tried again by itself, with growing pauses, until spec.backoffLimit"
_RESTART = "modelyard delete modeljob {name}, and apply it again"
_JOB: Mapping[str, tuple[str, ...]] = {
    # Before it can start, or between two attempts
    Reason.PREPARING: ("wait a moment; what happens now: modelyard logs {name} -f",),
    Reason.STARTING: ("wait a moment; what happens now: modelyard logs {name} -f",),
    Reason.MODEL_NOT_FOUND: ("apply Model {model}, or the job that makes it: this job then starts by itself",),
    Reason.MODEL_NOT_READY: ("wait until the model is prepared: the job then starts by itself",),
    Reason.RUNTIME_NOT_FOUND: ("apply Runtime {runtime}: the job then starts by itself",),
    Reason.RUNTIME_MISMATCH: (f"correct spec.{{section}}.runtime: {_RESTART}",),
    Reason.SECRET_NOT_FOUND: ("apply the Secret that is missing: the job then goes on by itself",),
    Reason.PREEMPTED: ("it goes on by itself when there is room; jobs of a higher spec.priority come first",),
    Reason.UNSCHEDULABLE: (
        "make room; what else runs here: modelyard get modelyard -A",
        f"or ask for less in spec.resources: {_RESTART}",
    ),
    Reason.STORE_UNREACHABLE: ("see that the store answers",),
    Reason.DISK_FULL: ("make room on that disk",),
    Reason.CRASHED: (_LOGS,),
    Reason.LOAD_FAILED: (_LOGS,),
    Reason.WARMUP_FAILED: (_LOGS,),
    Reason.STARTUP_TIMEOUT: (_LOGS,),
    # What it reads
    Reason.INPUT_NOT_FOUND: ("put the input at {input}, or correct spec.score.input",),
    Reason.INPUT_INVALID: ("write that file again, or take it out of {input}",),
    Reason.INPUT_CHANGED: ("leave {input} alone until the job is Complete",),
    Reason.SCHEMA_MISMATCH: (
        "correct spec.score.input.columns, or the input",
        "what the model takes: modelyard describe model {model}",
    ),
    Reason.ACCESS_DENIED: ("correct the Secret that credentials names, or name one",),
    Reason.BUCKET_NOT_FOUND: ("make the bucket, or correct the uri",),
    Reason.ARTIFACT_CHANGED: ("modelyard refresh {model}",),
    # What it writes
    Reason.OUTPUT_NOT_EMPTY: ("set spec.{section}.output.mode to {modes}, or another output.uri",),
    Reason.OUTPUT_IN_USE: (
        "who writes there: modelyard get modeljobs -A -o wide",
        "wait for it, or use another output.uri, or take the place over with output.mode: overwrite",
    ),
    Reason.OUTPUT_OVERTAKEN: (_OUTPUT_OF_ITS_OWN,),
    Reason.OUTPUT_MISSING: ("let the program leave it in OUTPUT_DIR, or correct spec.run.outputModel.path",),
    Reason.OUTPUT_MODEL_EXISTS: ("name another Model in spec.run.outputModel.name, or: modelyard delete model {made}",),
    Reason.PART_TOO_LARGE: ("keep fewer columns with spec.score.output.keep, or let the model give less for a row",),
    # Rows, runners and programs
    Reason.ROW_FAILED: ("correct the row, or set spec.score.errors.onError to deadLetter or skip",),
    Reason.ERROR_BUDGET_EXCEEDED: (
        "correct these rows, or the model, or allow more with spec.score.errors.maxRows and maxPercent",
    ),
    Reason.SHARD_FAILED: ("the last words of its runners: modelyard logs {name}", "correct these rows, or the model"),
    Reason.PROGRAM_FAILED: ("what it wrote: modelyard logs {name}", "correct the program"),
    Reason.ENVIRONMENT_MISSING: ("install what is missing, or correct spec.run.environment",),
    Reason.BACKOFF_LIMIT_EXCEEDED: (
        "the last words of the runners: modelyard logs {name}",
        "mend what ended them, or allow more with spec.backoffLimit",
    ),
    Reason.DEADLINE_EXCEEDED: ("allow more with spec.activeDeadlineSeconds{faster}",),
    Reason.UNSUPPORTED: ("correct the manifest as said above",),
    Reason.INVALID: ("correct the manifest as said above",),
}
_GOES_ON = "the stream then goes on by itself"
_ELSEWHERE = (
    "apply a ModelStream of another name whose spec.start says where to go on, and delete this one",
    "where its partitions were: modelyard describe modelstream {name}",
)
_STREAM: Mapping[str, tuple[str, ...]] = {
    # Before it can start
    Reason.PARTITIONS_WAITING: ("wait a moment: runners share the partitions; what they do: modelyard logs {name} -f",),
    Reason.MODEL_NOT_FOUND: ("apply Model {model}: the stream then starts by itself",),
    Reason.MODEL_NOT_READY: ("wait until the model is prepared: the stream then starts by itself",),
    Reason.RUNTIME_NOT_FOUND: ("apply Runtime {runtime}: the stream then starts by itself",),
    Reason.SECRET_NOT_FOUND: (f"apply the Secret that is missing: {_GOES_ON}",),
    Reason.UNSCHEDULABLE: (
        "make room; what else runs here: modelyard get modelyard -A",
        "or ask for less in spec.resources, and apply it",
    ),
    # Brokers and stores
    Reason.BROKER_UNREACHABLE: (f"see that {{brokers}} answers from this machine: {_GOES_ON}",),
    Reason.BROKER_REFUSED: (
        "correct {secrets}, then: modelyard restart {name}",
        f"or let the server allow what is said above: {_GOES_ON}",
    ),
    Reason.BROKER_FULL: (f"make room at the broker, on its disk or in the limits of the stream: {_GOES_ON}",),
    Reason.STREAM_NOT_FOUND: (f"make that stream, or let these credentials make it: {_GOES_ON}",),
    Reason.SUBJECT_NOT_FOUND: (
        f"let the stream take that subject: {_GOES_ON}",
        "or delete this ModelStream, and apply it with other subjects",
    ),
    Reason.STREAM_UNSUITABLE: (f"change that setting of the stream: {_GOES_ON}",),
    Reason.PARTITIONS_MISSING: (
        "set the transform above on stream {stream}, or let publishers write the number of the partition",
        f"what is stored already stays as it is; {_GOES_ON}",
    ),
    Reason.STORE_UNREACHABLE: (f"see that the store answers: {_GOES_ON}",),
    Reason.ACCESS_DENIED: ("correct the Secret that spec.sink.credentials names, then: modelyard restart {name}",),
    Reason.BUCKET_NOT_FOUND: (f"make the bucket: {_GOES_ON}",),
    Reason.DISK_FULL: (f"make room on that disk: {_GOES_ON}",),
    # Offsets and records
    Reason.OFFSET_LOST: _ELSEWHERE,
    Reason.SOURCE_REPLACED: _ELSEWHERE,
    Reason.OUTPUT_IN_USE: ("give each stream a sink.uri of its own: apply one of another name, and delete this one",),
    Reason.RECORDS_EXPIRED: (
        "let stream {stream} keep messages longer (max_age, max_bytes, max_msgs)",
        "or score faster: more spec.replicas, up to spec.partitions, or larger spec.batch.rows",
    ),
    Reason.RECORD_FAILED: (
        "set spec.deadLetter to put such records aside, or correct the model, and apply it",
        "what the model said: modelyard logs {name}",
    ),
    Reason.SCHEMA_MISMATCH: (
        "correct spec.source.columns or spec.source.format, or the model, and apply it",
        "what the model takes: modelyard describe model {model}",
    ),
    Reason.ARTIFACT_CHANGED: ("modelyard refresh {name}",),
}
"""For streams, where it is not as for services."""
_NO_SECRET = (
    "if it asks for credentials: name a Secret in spec.source.credentials and spec.sink.credentials, and apply it",
    f"or let the server allow what is said above: {_GOES_ON}",
)
_STREAM_GONE = (f"restore that stream, if there is a backup: {_GOES_ON}", "or " + _ELSEWHERE[0], _ELSEWHERE[1])
"""Offsets mean nothing in a stream that was made anew."""
_PASSING = frozenset(
    {Reason.STORE_UNREACHABLE, Reason.DISK_FULL, Reason.CRASHED, Reason.PROGRAM_FAILED, Reason.LOAD_FAILED,
     Reason.WARMUP_FAILED, Reason.STARTUP_TIMEOUT}
)  # fmt: skip
"""What a job that has not failed yet tries again."""


def steps(case: Case, cause: Mapping[str, Any]) -> tuple[str, ...]:
    """What to do about the condition of a service, model or runtime; of a stream, where it has none of its own."""
    name = case.body["metadata"]["name"]
    there = _there(case, cause)
    if there:
        return there
    uri = ((case.model or case.body).get("spec") or {}).get("uri") or "its place"
    found = _NEXT.get(str(cause.get("reason")), ())
    if found is _SAVE:  # the uri of a Model stays, that of a service's own one follows the manifest
        inline = bool((case.body.get("spec") or {}).get("model", {}).get("uri"))
        found = (*found, _CORRECT_URI if inline else _OTHER_MODEL)
    return tuple(step.format(name=name, uri=uri) for step in found)


def _there(case: Case, cause: Mapping[str, Any]) -> tuple[str, ...]:
    metadata, kind = case.body["metadata"], str(case.body.get("kind"))
    namespace = str(metadata.get("namespace") or "default")
    return cluster_steps.steps(str(cause.get("reason")), kind, str(metadata["name"]), namespace, cluster=case.cluster)


def stream_steps(case: Case, cause: Mapping[str, Any]) -> tuple[str, ...]:
    """What to do about the condition of a stream, or of its model."""
    reason, spec = str(cause.get("reason")), case.body.get("spec") or {}
    found = _STREAM.get(reason)
    if found is None or _there(case, cause):
        return steps(case, cause)
    secrets = _secrets(spec)
    if reason == Reason.BROKER_REFUSED and not secrets:
        found = _NO_SECRET
    elif reason == Reason.STREAM_NOT_FOUND and _has_begun(case):
        found = _STREAM_GONE
    source, sink = spec.get("source") or {}, spec.get("sink") or {}
    named = case.model["metadata"]["name"] if case.model else (spec.get("model") or {}).get("name")
    words = {
        "name": case.body["metadata"]["name"],
        "model": named or "NAME",
        "runtime": spec.get("runtime") or "NAME",
        "stream": source.get("stream") or "NAME",
        "secrets": " or ".join(f"Secret {each}" for each in secrets),
        "brokers": " or ".join(dict.fromkeys(each["uri"] for each in (source, sink) if each.get("uri"))) or "it",
    }
    return tuple(step.format(**words) for step in found)


def _secrets(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Which hold what brokers ask for."""
    places = [spec.get(each) or {} for each in ("source", "sink")]
    named = [
        each["credentials"] for each in places if each.get("credentials") and (each is places[0] or "stream" in each)
    ]
    return tuple(dict.fromkeys(named))


def _has_begun(case: Case) -> bool:
    return any("committed" in each for each in (case.body.get("status") or {}).get("partitions") or ())


def job_steps(case: Case, cause: Mapping[str, Any], *, failed: bool) -> tuple[str, ...]:
    """What to do about the condition of a job. failed: it has ended, and is never run again."""
    reason = str(cause.get("reason"))
    found = [*_there(case, cause)] or [step.format(**_job_words(case)) for step in _JOB.get(reason, ())]
    if failed:
        return (*found, *_again(case))
    return (*found, _RETRIED) if reason in _PASSING else tuple(found)


def _job_words(case: Case) -> dict[str, str]:
    body = case.body
    spec = body.get("spec") or {}
    score, run = spec.get("score") or {}, spec.get("run") or {}
    model = case.model["metadata"]["name"] if case.model else (score.get("model") or {}).get("name")
    return {
        "name": body["metadata"]["name"],
        "section": "run" if run else "score",
        "modes": "overwrite" if run else "append or overwrite",
        "input": (score.get("input") or {}).get("uri") or "its place",
        "model": model or "NAME",
        "runtime": score.get("runtime") or "NAME",
        "made": (run.get("outputModel") or {}).get("name") or "NAME",
        "faster": "" if run else ", or be faster with spec.parallelism",
    }


def _again(case: Case) -> tuple[str, ...]:
    """How a job that has failed is done after all."""
    body = case.body
    restart = f"then: {_RESTART.format(name=body['metadata']['name'])}"
    spec, status = body.get("spec") or {}, body.get("status") or {}
    run = spec.get("run")
    if run and (status.get("run") or (run.get("output") and status.get("startTime"))):
        return (restart, "with output.mode: overwrite, where it had begun a run at its output")
    if run or not status.get("run"):
        return (restart,)
    return (
        restart,
        "the same work goes on where it was; other work (another input, model, columns, keep or onError) needs "
        "output.mode: overwrite, or another output.uri",
    )
