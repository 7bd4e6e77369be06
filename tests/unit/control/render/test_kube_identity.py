"""Which containers of a pod act as its ServiceAccount."""

import pytest

from modelyard.control.ir.pod import Pod
from modelyard.control.ir.task import Task
from modelyard.control.ir.values import Key
from modelyard.control.render import kube_identity
from modelyard.wire.work import (
    InputWork,
    ModelWork,
    OutputWork,
    PrepareWork,
    RunWork,
    ScoreWork,
    ServeWork,
    SinkWork,
    SourceWork,
    StreamWork,
    WorkSpec,
)

S3, AZ, NATS = "s3://data/x", "az://data/x", "nats://broker:4222"


def model(uri: str) -> ModelWork:
    return ModelWork(name="m", digest="sha256:0", format="onnx", uri=uri)


def stream(sink: SinkWork, uri: str = S3) -> WorkSpec:
    source = SourceWork(uri=NATS, stream="in", subjects=("in.>",))
    return WorkSpec(stream=StreamWork(name="n.s", revision="r", model=model(uri), source=source, sink=sink))


FILES, MESSAGES = SinkWork(uri=S3), SinkWork(uri=NATS, stream="out", subject="out")
SERVE = WorkSpec(serve=ServeWork(models=(model(S3),)))
SCORE = WorkSpec(score=ScoreWork(job="j", model=model(S3), input=InputWork(uri=S3), output=OutputWork(uri=S3)))
RUN = WorkSpec(run=RunWork(job="j", job_name="n/j", command=("train",), output=OutputWork(uri=S3)))


def task(work: WorkSpec, account: str = "reader") -> Task:
    owner = Key(kind="Model", namespace="n", name="m")
    return Task(name="t.n", owner=owner, work=work, pod=Pod(service_account=account))


@pytest.mark.parametrize(
    ("work", "fetch", "main"),
    [
        (WorkSpec(prepare=PrepareWork(uri=S3)), True, False),
        (WorkSpec(prepare=PrepareWork(uri="https://host/m.onnx")), False, False),
        (SERVE, True, False),
        (SCORE, True, True),
        (stream(FILES), True, True),
        (stream(MESSAGES), True, False),
        (stream(MESSAGES, uri=""), False, False),
        (RUN, False, True),
    ],
)
def test_who_opens_stores_of_clouds_does_so_as_the_account(work: WorkSpec, fetch: bool, main: bool) -> None:
    asked = task(work)
    assert (kube_identity.account_of_fetch(asked), kube_identity.account_of_main(asked)) == (
        "reader" if fetch else "",
        "reader" if main else "",
    )
    nobody = task(work, account="")
    assert kube_identity.account_of_fetch(nobody) == kube_identity.account_of_main(nobody) == ""
    assert kube_identity.annotations(nobody) == kube_identity.labels(nobody) == {}


@pytest.mark.parametrize(
    ("work", "without"),
    [(SERVE, ["main", "worker"]), (stream(MESSAGES), ["main", "worker"]), (SCORE, ["worker"]), (RUN, [])],
)
def test_containers_that_run_models_get_no_token_unless_they_need_it(work: WorkSpec, without: list[str]) -> None:
    found = kube_identity.annotations(task(work))
    assert found.get("eks.amazonaws.com/skip-containers", "") == ",".join(without)
    assert found.get("azure.workload.identity/skip-containers", "") == ";".join(without)


def test_the_webhook_of_azure_is_called_for_its_stores_alone() -> None:
    assert kube_identity.labels(task(WorkSpec(prepare=PrepareWork(uri=AZ)))) == {"azure.workload.identity/use": "true"}
    assert kube_identity.labels(task(WorkSpec(prepare=PrepareWork(uri=S3)))) == {}
