"""Paths of one machine, which mean nothing where processes share no folder with anybody."""

import shlex
from collections.abc import Iterator

from modelyard.api.job import ModelJob, Run, Score
from modelyard.api.model import Model
from modelyard.api.service import ModelReference
from modelyard.api.stream import ModelStreamSpec
from modelyard.base.conditions import Reason
from modelyard.base.errors import FieldError
from modelyard.control.ir.observed import Capabilities
from modelyard.control.plan.runtimes import Refusal
from modelyard.wire.work import LOCAL_BROKER

_FILE = "file://"
_HERE = "is a path of one machine, and this is a cluster"


def is_local(uri: str) -> bool:
    """A path, relative or not, or `file://`."""
    return "://" not in uri or uri.lower().startswith(_FILE)


def of_model(model: Model, capabilities: Capabilities) -> Refusal | None:
    """What is wrong with the uri of a Model."""
    return _refusal(_read("spec.uri", model.spec.uri)) if capabilities.fetches else None


def of_reference(reference: ModelReference, path: str, capabilities: Capabilities) -> Refusal | None:
    """What is wrong with an inline artifact. path: of the reference."""
    if not capabilities.fetches or reference.uri is None:
        return None
    return _refusal(_read(f"{path}.uri", reference.uri))


def of_job(job: ModelJob, capabilities: Capabilities) -> Refusal | None:
    """Every local path of a job, since none of them can be changed later."""
    if not capabilities.fetches:
        return None
    score, run = job.spec.score, job.spec.run
    return _refusal(_of_score(score) if score else _of_run(run) if run else iter(()))


def of_stream(spec: ModelStreamSpec, capabilities: Capabilities) -> Iterator[tuple[Reason, FieldError]]:
    """Local paths, and the broker that only a laptop has."""
    if not capabilities.fetches:
        return
    for path, uri in (("spec.source.uri", spec.source.uri), ("spec.sink.uri", spec.sink.uri)):
        if uri == LOCAL_BROKER:
            message = (
                f"{LOCAL_BROKER} is started on one machine only; name a broker, such as nats://nats.other:4222, and "
                "in credentials what it asks for"
            )
            yield Reason.UNSUPPORTED, FieldError(path, message)
    if spec.sink.stream is None:
        yield from ((Reason.LOCAL_PATH, each) for each in _written("spec.sink.uri", spec.sink.uri))


def _of_score(score: Score) -> Iterator[FieldError]:
    if score.model.uri is not None:
        yield from _read("spec.score.model.uri", score.model.uri)
    yield from _read("spec.score.input.uri", score.input.uri)
    yield from _written("spec.score.output.uri", score.output.uri)


def _of_run(run: Run) -> Iterator[FieldError]:
    environment = run.environment
    if environment and environment.python:
        yield FieldError(
            "spec.run.environment.python",
            f"{environment.python} {_HERE}; name an image that holds it in spec.run.environment.image",
        )
    if run.working_dir and not (environment and environment.image and run.working_dir.startswith("/")):
        yield FieldError(
            "spec.run.workingDir",
            f"{run.working_dir} {_HERE}; name an image in spec.run.environment.image, and here an absolute path in it",
        )
    if run.output:
        yield from _written("spec.run.output.uri", run.output.uri)
    if run.checkpoint:
        yield from _written("spec.run.checkpoint.uri", run.checkpoint.uri)


def _read(path: str, uri: str) -> Iterator[FieldError]:
    if is_local(uri):
        place = uri[len(_FILE) :] if uri.lower().startswith(_FILE) else uri
        yield FieldError(
            path,
            f"{uri} {_HERE}; upload it with 'modelyard push {shlex.quote(place)}', and write the uri that it prints",
        )


def _written(path: str, uri: str) -> Iterator[FieldError]:
    if is_local(uri):
        yield FieldError(path, f"{uri} {_HERE}; name a prefix of a store, such as s3://bucket/prefix/")


def _refusal(faults: Iterator[FieldError]) -> Refusal | None:
    """All of them at once."""
    found = "; ".join(map(str, faults))
    return Refusal(reason=Reason.LOCAL_PATH, message=found) if found else None
