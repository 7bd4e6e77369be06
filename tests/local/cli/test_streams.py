"""The commands about streams, against the embedded API server. A thread plays the controllers."""

from collections.abc import Callable
from typing import Any

from cli_testing import Project, condition, follow_up
from modelyard.control.ir.names import ANNOTATION_RESTART
from modelyard.control.kube.resources import MODELSTREAMS

Object = dict[str, Any]
SPEC: Object = {
    "model": {"name": "forest"},
    "source": {"uri": "nats://local", "stream": "payments", "subjects": ["payments.in.*.>"]},
    "sink": {"uri": "nats://local", "stream": "scored", "subject": "payments.scored"},
    "delivery": "exactlyOnce",
    "partitions": 2,
    "key": {"token": 3},
}
FLOWS: Object = {
    "latestCreatedRevision": "fraud-stream-00001",
    "latestReadyRevision": "fraud-stream-00001",
    "delivery": "exactlyOnce",
    "readyReplicas": 1,
    "partitions": [
        {"number": 0, "committed": 70, "lag": 5, "runner": "fraud-stream-00001.default-0"},
        {"number": 1, "committed": 90},
    ],
    "lag": 5,
    "records": 1600,
    "deadLetters": 3,
    "recordsPerSecond": 12,
    "latencyMilliseconds": 20,
}


def stream(name: str = "fraud", **spec: Any) -> Object:
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelStream", "metadata": {"name": name}}
    return {**body, "spec": {**SPEC, **spec}}


def said(reason: str, *, paused: bool = False, generation: int = 1, **status: Any) -> Object:
    """A status as the controllers write it."""
    ready = "True" if reason == "Following" else "False"
    suspended = "Suspended" if paused else "NotSuspended"
    return {
        **status,
        "conditions": [
            condition(ready, reason, "as said", generation=generation),
            condition("True" if paused else "False", suspended, "", kind="Suspended", generation=generation),
        ],
    }


def changes(project: Project, *statuses: Object) -> Any:
    found: list[Callable[[Object], Object]] = [lambda _body, status=each: status for each in statuses]  # type: ignore[misc]
    return follow_up(project, MODELSTREAMS, "fraud", *found)


def test_waiting_for_a_stream_ends_when_it_follows_or_is_paused_as_declared(project: Project) -> None:
    project.write("stream.yaml", stream())
    controller = changes(project, said("Starting"), said("Following", **FLOWS))
    answer = project.run("apply", "-f", "stream.yaml", "--wait", "--timeout", "15")
    controller.join()
    assert answer.out.splitlines()[-1] == "modelstream/fraud is Ready"
    project.write("stream.yaml", stream(suspend=True))
    controller = changes(project, said("Suspended", paused=True, generation=2))
    answer = project.run("apply", "-f", "stream.yaml", "--wait", "--timeout", "15")
    controller.join()
    assert answer.out.splitlines()[-1] == "modelstream/fraud is paused, as declared"


def test_waiting_for_a_stream_that_somebody_must_mend_ends_soon(project: Project) -> None:
    project.write("stream.yaml", stream())
    controller = changes(project, said("StreamNotFound"))
    answer = project.run("apply", "-f", "stream.yaml", "--wait", "--timeout", "30")
    controller.join()
    assert answer.status == 1
    assert "ModelStream fraud is not Ready: StreamNotFound: as said" in answer.err
    assert "'modelyard why fraud' says what to do" in answer.err


def test_a_stream_is_listed_described_and_explained(project: Project) -> None:
    project.write("stream.yaml", stream())
    project.run("apply", "-f", "stream.yaml")
    project.set_status(MODELSTREAMS, "fraud", **said("Following", **FLOWS))
    header, row = project.run("get", "mstr").out.splitlines()
    columns = ["NAME", "READY", "REASON", "DELIVERY", "PARTITIONS", "RUNNERS", "LAG", "RATE", "AGE"]
    assert header.split() == columns
    assert row.split()[:8] == ["fraud", "True", "Following", "exactlyOnce", "2", "1", "5", "12"]
    assert "modelstream/fraud" in project.run("get", "modelyard").out
    described = " ".join(project.run("describe", "modelstream", "fraud").out.split())
    for fact in (
        "Runners: 1 ready, 1 asked for",
        "Records: 1,600, 3 of them dead letters",
        "Pace: 12 records/s, 20 ms from arrival to commit",
        "Lag: 5 messages waiting",
        "NUMBER COMMITTED LAG RUNNER 0 70 5 fraud-stream-00001.default-0 1 90",
    ):
        assert fact in described, described
    assert "ModelStream fraud is Ready and following" in project.run("why", "fraud").out


def test_streams_are_suspended_and_resumed(project: Project) -> None:
    project.write("stream.yaml", stream())
    project.run("apply", "-f", "stream.yaml")
    project.set_status(MODELSTREAMS, "fraud", **said("Following", **FLOWS))
    controller = changes(project, said("Suspended", paused=True, generation=2))
    answer = project.run("suspend", "fraud", "--timeout", "15")
    controller.join()
    assert answer.out.splitlines()[1:] == ["modelstream/fraud is suspended; its offsets stay"]
    assert project.get(MODELSTREAMS, "fraud")["spec"]["suspend"] is True
    controller = changes(project, said("Starting", generation=3))
    answer = project.run("resume", "modelstream/fraud", "--timeout", "15")
    controller.join()
    assert answer.out.splitlines()[1:] == ["modelstream/fraud goes on: Starting: as said"]


def test_a_stream_is_restarted_as_a_new_revision(project: Project) -> None:
    project.write("stream.yaml", stream())
    project.run("apply", "-f", "stream.yaml")
    project.set_status(MODELSTREAMS, "fraud", **said("Following", **FLOWS))
    renewed = {"latestCreatedRevision": "fraud-stream-00002", "latestReadyRevision": "fraud-stream-00002"}
    told = said("Following", **{**FLOWS, **renewed})

    def follow(body: Object) -> Object | None:
        return told if ANNOTATION_RESTART in body["metadata"].get("annotations", {}) else None

    controller = follow_up(project, MODELSTREAMS, "fraud", follow)
    answer = project.run("restart", "fraud", "--timeout", "15")
    controller.join()
    assert answer.out.splitlines()[1:] == ["modelstream/fraud restarted: fraud-stream-00002 scores"], answer
    assert project.get(MODELSTREAMS, "fraud")["metadata"]["annotations"][ANNOTATION_RESTART]
    assert "there is no ModelService or ModelStream nope" in project.run("restart", "nope").err
    assert "only services and streams can be restarted" in project.run("restart", "model/forest").err
