"""What a stream's runners do, in the words of the runtime half; what no runner can do is refused here."""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from modelyard.api.stream import ModelStream, ModelStreamSpec, StreamStart
from modelyard.base import clock, durations
from modelyard.base.conditions import Reason
from modelyard.base.errors import FieldError
from modelyard.control.ir import names
from modelyard.control.ir.observed import Capabilities
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import Credential, Unit
from modelyard.control.ir.values import Key
from modelyard.control.plan import compute, local_path, pods, reference
from modelyard.control.plan import revision as revisions
from modelyard.control.plan.model import credentials
from modelyard.control.plan.reference import Referrer
from modelyard.control.plan.revision import Inputs, model_work
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.views import OwnedModel, StreamView
from modelyard.wire.work import (
    LOCAL_BROKER,
    BatchWork,
    ModelWork,
    SinkWork,
    SourceWork,
    StartWork,
    StreamWork,
    WorkSpec,
)

KIND = "ModelStream"
BESIDE_THE_FILES = "dead-letters"
"""Stands for a subject where the sink is files."""
_ROWS = {True: 256, False: 100_000}
_WAIT = {True: "10ms", False: "10s"}
"""Of messages (True) and of files."""
_DRAIN_SECONDS = 30.0
_KILLED_AFTER_SECONDS = 40.0
_LAST_PORT = 65535
_BROKERS = frozenset({"nats", "tls"})
_STORES = frozenset({"", "file", "s3", "gs", "az"})
_PAIRS = (
    (_BROKERS, _BROKERS, "NATS to NATS"),
    (_BROKERS, _STORES, "NATS to files (a path, file://, s3://, gs:// or az://)"),
)
"""Schemes of sources and sinks that can be committed together, and their names."""
_OF_THE_PROCESS = {
    *("model", "runtime", "replicas", "suspend", "resources", "env"),
    *("service_account_name", "pod_template"),
}
"""Fields that are recorded otherwise, or that a running process does not know."""


def key(stream: ModelStream) -> Key:
    """The owner of everything that is made for a stream."""
    return Key(kind=KIND, namespace=stream.metadata.namespace, name=stream.metadata.name)


def to_messages(spec: ModelStreamSpec) -> bool:
    """Whether results go to a broker; else they become files."""
    return spec.sink.stream is not None


def delivery(spec: ModelStreamSpec) -> str:
    """The declared one, or the default of the sink."""
    return spec.delivery or ("atLeastOnce" if to_messages(spec) else "exactlyOnce")


def owned_model(stream: ModelStream, capabilities: Capabilities) -> OwnedModel | None:
    """The Model behind an inline `uri`, where that can be read."""
    spec = stream.spec
    if local_path.of_reference(spec.model, "spec.model", capabilities) is not None:
        return None
    return reference.owned_model(_owner_of_models(stream), spec.model, spec.service_account_name, spec.pod_template)


def resolve(view: StreamView) -> Inputs | Refusal:
    """What a revision is made from, or the first thing that is missing or wrong."""
    spec, owner = view.stream.spec, key(view.stream)
    referrer = Referrer(
        namespace=owner.namespace,
        name=_owner_of_models(view.stream),
        path="spec.model",
        runtime=spec.runtime,
        account=spec.service_account_name,
        template=spec.pod_template,
    )
    wrong = refused(spec, view.capabilities)
    found = wrong or reference.resolve(referrer, spec.model, view.models, view.runtimes)
    if isinstance(found, Refusal):
        return found
    model, selection = found
    refusal = pods.runtime_refusal(selection, spec, view.capabilities)
    if refusal is not None:
        return refusal
    account = model.spec.service_account_name or ""
    return Inputs(
        model=model,
        selection=selection,
        resources=spec.resources or selection.resources,
        variables=compute.variables(selection.env, spec.env or ()),
        restart=view.stream.metadata.annotations.get(names.ANNOTATION_RESTART, ""),
        fetches=view.capabilities.fetches,
        pod=pods.pod(pods.of(spec), view.capabilities, account=account, image=selection.image),
    )


def refused(spec: ModelStreamSpec, capabilities: Capabilities) -> Refusal | None:
    """What the stream itself says that cannot be done in this place, or in any."""
    found = (*faults(spec), *local_path.of_stream(spec, capabilities))
    if found:
        return Refusal(reason=found[0][0], message="; ".join(str(error) for _, error in found))
    return pods.refusal(spec, capabilities) or local_path.of_reference(spec.model, "spec.model", capabilities)


def declared(stream: ModelStream, inputs: Inputs) -> dict[str, Any]:
    """The inputs as recorded: their hash decides whether a new revision is needed.

    Defaults are left out, so that fields of later releases make no new revision.
    """
    spec = stream.spec.model_dump(
        mode="json", by_alias=True, exclude=_OF_THE_PROCESS, exclude_none=True, exclude_defaults=True
    )
    return {**revisions.declared(inputs), "stream": spec}


def record(stream: ModelStream, inputs: Inputs, number: int) -> Revision:
    """The revision of that number, with the unit that its runners will be."""
    owner = key(stream)
    body = declared(stream, inputs)
    name = names.stream_revision(owner.name, number)
    resources = compute.resources(inputs.resources)
    more = {"version": str(number), "uri": revisions.fetched_from(inputs.model, inputs.fetches)}
    model = model_work(inputs.model.metadata.name, inputs.model, inputs.selection, **more)
    work = stream_work(stream, name, model, compute.threads(resources))
    unit = Unit(
        name=names.unit(owner.namespace, name),
        owner=owner,
        revision=name,
        work=WorkSpec(stream=work),
        variables=inputs.variables,
        credentials=(*keys(stream), *revisions.keys_to(inputs.model, inputs.fetches)),
        resources=resources,
        startup_timeout_seconds=inputs.selection.startup_timeout_seconds,
        drain_seconds=_KILLED_AFTER_SECONDS,
        pod=inputs.pod,
    )
    return Revision(name=name, owner=owner, number=number, inputs_hash=names.inputs_hash(body), inputs=body, unit=unit)


def keys(stream: ModelStream) -> tuple[Credential, ...]:
    """The Secrets with which runners reach source and sink."""
    spec = stream.spec
    return (*credentials("source", spec.source.credentials), *credentials("sink", spec.sink.credentials))


def stream_work(stream: ModelStream, revision: str, model: ModelWork, threads: int) -> StreamWork:
    """Without what the processes of a revision learn later: which partitions have begun."""
    spec, owner = stream.spec, key(stream)
    batch, messages = spec.batch, to_messages(spec)
    return StreamWork(
        name=f"{owner.namespace}.{owner.name}",
        revision=revision,
        model=model,
        source=SourceWork(
            uri=spec.source.uri,
            stream=spec.source.stream,
            subjects=spec.source.subjects,
            format=spec.source.format,
            columns=tuple(spec.source.columns or ()),
        ),
        sink=SinkWork(
            uri=spec.sink.uri,
            stream=spec.sink.stream or "",
            subject=spec.sink.subject or "",
            format=spec.sink.format or "",
            keep=tuple(spec.sink.keep or ()),
        ),
        dead_letter="" if spec.dead_letter is None else spec.dead_letter.subject or BESIDE_THE_FILES,
        delivery=delivery(spec),
        partitions=spec.partitions,
        key_token=spec.key.token if spec.key else 0,
        batch=BatchWork(
            rows=(batch and batch.rows) or _ROWS[messages],
            wait_seconds=durations.parse((batch and batch.wait) or _WAIT[messages]),
        ),
        max_deliver=spec.max_deliver,
        start=_start(spec.start),
        threads=threads,
        drain_seconds=_DRAIN_SECONDS,
    )


def _owner_of_models(stream: ModelStream) -> str:
    """A service of the same name may have the same artifact: each has a Model of its own."""
    return f"{stream.metadata.name}-stream"


def _start(start: StreamStart) -> StartWork:
    if start.time is not None:
        return StartWork(at="time", time=clock.seconds_since_epoch(start.time))
    if start.sequence is not None:
        return StartWork(at="sequence", sequence=start.sequence)
    return StartWork(at=start.from_ or "latest")


def faults(spec: ModelStreamSpec) -> Iterator[tuple[Reason, FieldError]]:
    """What the schema of the kind cannot say."""
    if not any(_scheme(spec.source.uri) in sources and _scheme(spec.sink.uri) in sinks for sources, sinks, _ in _PAIRS):
        pair = f"{_scheme(spec.source.uri) or 'a path'} to {_scheme(spec.sink.uri) or 'a path'}"
        known = " and ".join(name for _, _, name in _PAIRS)
        message = (
            f"{pair} is not supported, since offsets and results could not be committed together; supported are {known}"
        )
        yield Reason.UNSUPPORTED, FieldError("spec.source.uri", message)
    yield from ((Reason.INVALID, each) for each in (*_brokers(spec), *_columns(spec), *_keys(spec), *_overlaps(spec)))


def _scheme(uri: str) -> str:
    """`nats` of `nats://host`; "" of a path."""
    return uri.partition("://")[0].lower() if "://" in uri else ""


def _brokers(spec: ModelStreamSpec) -> Iterator[FieldError]:
    for path, place in (("spec.source", spec.source), ("spec.sink", spec.sink)):
        if _scheme(place.uri) not in _BROKERS:
            continue
        if place.uri == LOCAL_BROKER and place.credentials:
            yield FieldError(f"{path}.credentials", f"{LOCAL_BROKER} is reached with keys of its own; leave it out")
        port = place.uri.rpartition(":")[2]
        if port.isdecimal() and not 0 < int(port) <= _LAST_PORT:
            yield FieldError(f"{path}.uri", f"there is no port {port}; expected 1 to {_LAST_PORT}")


def _columns(spec: ModelStreamSpec) -> Iterator[FieldError]:
    for path, columns in (("spec.source.columns", spec.source.columns), ("spec.sink.keep", spec.sink.keep)):
        if twice := sorted(each for each, count in Counter(columns or ()).items() if count > 1):
            yield FieldError(path, f"{', '.join(twice)} is there twice; name each field once")


def _keys(spec: ModelStreamSpec) -> Iterator[FieldError]:
    """Each partition has filters of its own: its number stands where the subjects have a wildcard."""
    for index, subject in enumerate(spec.source.subjects):
        tokens = subject.split(".")
        if spec.key is not None and tokens[spec.key.token - 1 : spec.key.token] != ["*"]:
            found = tokens[spec.key.token - 1] if spec.key.token <= len(tokens) else "nothing"
            message = (
                f"token {spec.key.token} of {subject} must be *, since spec.key.token says that it is the partition's "
                f"number; it is {found}"
            )
            yield FieldError(f"spec.source.subjects[{index}]", message)


def _overlaps(spec: ModelStreamSpec) -> Iterator[FieldError]:
    source, sink = spec.source, spec.sink
    for one, other in combinations(source.subjects, 2):
        if overlap(one, other):
            message = f"{one} and {other} overlap, so some records would come twice; name one of them"
            yield FieldError("spec.source.subjects", message)
    if (source.uri, source.stream) != (sink.uri, sink.stream):
        return
    dead = spec.dead_letter.subject if spec.dead_letter else None
    results = {"spec.sink.subject": sink.subject, "spec.deadLetter.subject": dead}
    for path, subject in results.items():
        met = next((each for each in source.subjects if subject and overlap(each, subject)), None)
        if met:
            message = (
                f"{subject} is within {met} of spec.source.subjects, so results would be scored again; use another "
                "subject or another stream"
            )
            yield FieldError(path, message)


def overlap(one: str, other: str) -> bool:
    """Whether a subject can match both filters. Source: the subject mapping rules of NATS."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)
