"""What a job does, in the words of the runtime half: recorded once, when it can start."""

from dataclasses import dataclass
from typing import Any

from modelyard.api.job import ModelJob, Run, Score
from modelyard.api.model import Model
from modelyard.control.ir import names
from modelyard.control.ir.observed import Capabilities
from modelyard.control.ir.pod import Pod
from modelyard.control.ir.revision import JobRevision
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Credential
from modelyard.control.ir.values import Key
from modelyard.control.plan import compute, pods
from modelyard.control.plan.model import credentials
from modelyard.control.plan.revision import fetched_from, keys_to, model_work
from modelyard.control.plan.runtimes import Selection
from modelyard.wire.work import (
    ArtifactWork,
    ErrorsWork,
    InputWork,
    OutputWork,
    RunWork,
    ScoreWork,
    WorkSpec,
)

KIND = "ModelJob"
PRIORITIES = {"low": -100, "normal": 0, "high": 100}
_GRACE_SECONDS = 30.0
_SHARDS_PER_RUNNER = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """The prepared model of a scoring job, and the way to run it."""

    model: Model
    selection: Selection


def key(job: ModelJob) -> Key:
    """The owner of everything that is made for a job."""
    return Key(kind=KIND, namespace=job.metadata.namespace, name=job.metadata.name)


def record(job: ModelJob, scorer: Scorer | None, capabilities: Capabilities) -> JobRevision:
    """The revision of a job. scorer: for `score`."""
    owner = key(job)
    inputs: dict[str, Any] = {"uid": job.metadata.uid}
    if scorer is not None:
        inputs["model"] = {"name": scorer.model.metadata.name, "digest": scorer.model.status.digest}
    return JobRevision(
        name=names.job_revision(owner.name),
        owner=owner,
        inputs_hash=names.inputs_hash(inputs),
        inputs=inputs,
        task=_task(job, owner, scorer, capabilities),
    )


def _task(job: ModelJob, owner: Key, scorer: Scorer | None, capabilities: Capabilities) -> Task:
    spec = job.spec
    declared = spec.resources or (scorer.selection.resources if scorer else None)
    resources = compute.resources(declared)
    if spec.score is not None and scorer is not None:
        uri = fetched_from(scorer.model, capabilities.fetches)
        work = WorkSpec(score=_score(job, spec.score, scorer, compute.threads(resources), uri))
        layers = (scorer.selection.env, spec.env or ())
        keys = (
            *credentials("input", spec.score.input.credentials),
            *credentials("output", spec.score.output.credentials),
            *keys_to(scorer.model, capabilities.fetches),
        )
    else:
        assert spec.run is not None
        work, layers = WorkSpec(run=_run(job, spec.run)), ((), spec.env or ())
        keys = _run_credentials(spec.run)
    nodes = spec.run.nodes if spec.run else 1
    return Task(
        name=names.job_task(owner, job.metadata.uid),
        owner=owner,
        work=work,
        deadline_seconds=0.0,
        grace_seconds=_GRACE_SECONDS,
        parallelism=nodes if spec.run else spec.parallelism,
        restart=True,
        gang=nodes > 1,
        priority=PRIORITIES[spec.priority],
        resources=resources,
        variables=compute.variables(*layers),
        credentials=keys,
        pod=_pod(job, scorer, capabilities),
    )


def _pod(job: ModelJob, scorer: Scorer | None, capabilities: Capabilities) -> Pod:
    spec = job.spec
    environment = spec.run.environment if spec.run else None
    return pods.pod(
        pods.of(spec),
        capabilities,
        account=(scorer.model.spec.service_account_name if scorer else None) or "",
        image=scorer.selection.image if scorer else (environment.image if environment else None) or "",
        queue=spec.queue or "",
    )


def _score(job: ModelJob, score: Score, scorer: Scorer, threads: int, uri: str) -> ScoreWork:
    errors = score.errors
    return ScoreWork(
        job=job.metadata.uid,
        model=model_work(scorer.model.metadata.name, scorer.model, scorer.selection, uri=uri),
        input=InputWork(uri=score.input.uri, format=score.input.format or "", columns=tuple(score.input.columns or ())),
        output=OutputWork(
            uri=score.output.uri,
            format=score.output.format or "",
            keep=tuple(score.output.keep or ()),
            mode=score.output.mode,
        ),
        errors=ErrorsWork(on_error=errors.on_error, max_rows=errors.max_rows, max_percent=errors.max_percent),
        batch_rows=score.batch_rows,
        threads=threads,
        min_shards=_SHARDS_PER_RUNNER * job.spec.parallelism,
    )


def _run(job: ModelJob, run: Run) -> RunWork:
    made = run.output_model
    return RunWork(
        job=job.metadata.uid,
        job_name=f"{job.metadata.namespace}/{job.metadata.name}",
        command=run.command,
        python=(run.environment.python if run.environment else None) or "",
        directory=run.working_dir or "",
        nodes=run.nodes,
        output=OutputWork(uri=run.output.uri, mode=run.output.mode) if run.output else None,
        checkpoint=run.checkpoint.uri if run.checkpoint else "",
        artifact=ArtifactWork(name=made.name, path=made.path, format=made.format or "") if made else None,
    )


def _run_credentials(run: Run) -> tuple[Credential, ...]:
    return (
        *(credentials("output", run.output.credentials) if run.output else ()),
        *(credentials("checkpoint", run.checkpoint.credentials) if run.checkpoint else ()),
    )
