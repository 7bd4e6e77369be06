"""`modelyard why` for streams: a table of statuses, and what is answered."""

from typing import Any

import pytest

from modelyard.base.conditions import Reason
from modelyard.sdk.diagnosis import Case, Diagnosis, diagnose
from modelyard.sdk.merge import annotated
from modelyard.sdk.next_steps import stream_steps

Object = dict[str, Any]
NOW = 1_800_000_000.0
SINCE = "2027-01-15T07:58:41Z"
NATS = "nats://nats:4222"
SPEC: Object = {
    "model": {"name": "forest"},
    "source": {"uri": NATS, "stream": "payments", "subjects": ["payments.in.*.>"]},
    "sink": {"uri": NATS, "stream": "scored", "subject": "payments.scored"},
    "partitions": 2,
    "replicas": 1,
}
HELD = [{"number": 0, "committed": 7, "runner": "fraud-stream-00001.default-0"}, {"number": 1, "committed": 9}]


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": SINCE,
    }


def stream(*conditions: Object, spec: Object | None = None, going: bool = False, **status: Any) -> Object:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelStream",
        "metadata": {"name": "fraud", "generation": 1, **({"deletionTimestamp": SINCE} if going else {})},
        "spec": {**SPEC, **(spec or {})},
        "status": {"conditions": list(conditions), **status},
    }


def unready(reason: str, message: str = "", **more: Any) -> Object:
    return stream(condition("Ready", "False", reason, message), **more)


def why(body: Object, **case: Any) -> Diagnosis:
    return diagnose(Case(body=body, **case), NOW)


def test_a_stream_that_follows_tells_its_numbers() -> None:
    ready = condition("Ready", "True", "Following", "2 partitions, 5 messages waiting, 30 records/s")
    found = why(stream(ready, records=1200, deadLetters=3, readyReplicas=3))
    assert found.healthy
    assert found.text() == (
        "ModelStream fraud is Ready and following\n"
        "  2 partitions, 5 messages waiting, 30 records/s\n"
        "  1,200 records so far, 3 of them dead letters\n"
        "  1 runner stands by"
    )


def test_what_was_lost_at_the_source_is_told_though_it_follows() -> None:
    lost = condition("RecordsExpired", "True", "RecordsExpired", "12 messages left the source before they were read")
    found = why(stream(condition("Ready", "True", "Following", "2 partitions"), lost))
    assert found.healthy
    assert found.headline == "ModelStream fraud is Ready and following, but:"
    assert "12 messages left the source" in found.details
    assert found.next_steps[0] == "let stream payments keep messages longer (max_age, max_bytes, max_msgs)"


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("BrokerUnreachable", f"see that {NATS} answers from this machine: the stream then goes on by itself"),
        ("BrokerRefused", "name a Secret in spec.source.credentials and spec.sink.credentials, and apply it"),
        ("BrokerFull", "make room at the broker"),
        ("SubjectNotFound", "let the stream take that subject"),
        ("PartitionsMissing", "set the transform above on stream payments"),
        ("OffsetLost", "apply a ModelStream of another name"),
        ("RecordFailed", "set spec.deadLetter to put such records aside"),
        ("ModelNotFound", "apply Model forest: the stream then starts by itself"),
        ("Crashed", "modelyard logs fraud"),
        ("Invalid", "correct the manifest as said above, and apply it"),
    ],
)
def test_what_keeps_it_is_told_with_what_to_do(reason: str, step: str) -> None:
    found = why(unready(reason, "what happened"))
    assert not found.healthy
    assert found.headline == f"ModelStream fraud is not Ready: {reason} (for 79s)"
    assert found.details == "what happened"
    assert any(step in each for each in found.next_steps), found.next_steps
    assert found.facts == ("nothing is scored meanwhile; what arrives waits at the source",)


def test_what_goes_on_meanwhile_is_told() -> None:
    status = {
        "partitions": HELD,
        "latestReadyRevision": "fraud-stream-00001",
        "latestCreatedRevision": "fraud-stream-00002",
        "records": 16,
    }
    found = why(unready("LoadFailed", "fraud-stream-00002: 0 of 1 runners ready: boom", **status))
    assert found.facts == ("1 of 2 partitions has a runner", "fraud-stream-00001 goes on scoring", "16 records so far")


def test_the_failure_of_its_model_is_its_own() -> None:
    model = {
        "kind": "Model",
        "metadata": {"name": "forest", "generation": 1},
        "spec": {"uri": "models/forest.onnx"},
        "status": {"conditions": [condition("Ready", "False", "ArtifactNotFound", "nothing at models/forest.onnx")]},
    }
    found = why(unready("ArtifactNotFound", "Model forest: nothing at models/forest.onnx"), model=model)
    assert "ArtifactNotFound" in found.headline
    assert found.next_steps[0] == "save a good model at models/forest.onnx, then: modelyard refresh fraud"


def test_a_paused_stream_is_well() -> None:
    suspended = condition("Suspended", "True", "Suspended", "suspend is true; offsets stay")
    body = stream(condition("Ready", "False", "Suspended"), suspended, records=16)
    found = why(body)
    assert found.healthy
    assert (found.headline, found.next_steps) == (
        "ModelStream fraud is suspended (for 79s)",
        ("modelyard resume fraud",),
    )
    declared = annotated({**body, "spec": {**body["spec"], "suspend": True}})
    assert len(why(declared).next_steps) == 2
    zero = condition("Suspended", "True", "ScaledToZero", "replicas is 0")
    found = why(stream(condition("Ready", "False", "ScaledToZero"), zero))
    assert found.headline == "ModelStream fraud is scaled to zero (for 79s)"
    assert found.next_steps == ("set spec.replicas to 1 or more to let fraud go on",)


@pytest.mark.parametrize(
    ("conditions", "headline"),
    [
        ((), "ModelStream fraud is being deleted"),
        ((condition("Cleaned", "False", "Cleaning", "it is removed"),), "ModelStream fraud is being deleted"),
        (
            (condition("Cleaned", "False", "BrokerUnreachable", "no answer"),),
            "ModelStream fraud is being deleted, and what it left at its broker cannot be removed: BrokerUnreachable",
        ),
    ],
)
def test_one_that_is_being_deleted_says_what_it_waits_for(conditions: tuple[Object, ...], headline: str) -> None:
    assert why(stream(*conditions, going=True)).headline == headline


def test_every_reason_of_a_stream_has_a_next_step() -> None:
    reasons = [each for each in Reason if each.name.startswith(("BROKER_", "STREAM_", "SUBJECT_", "PARTITIONS_"))]
    reasons += [Reason.OFFSET_LOST, Reason.SOURCE_REPLACED, Reason.RECORDS_EXPIRED, Reason.RECORD_FAILED]
    for reason in reasons:
        assert stream_steps(Case(body=stream()), {"reason": reason}), reason


@pytest.mark.parametrize(
    ("source", "sink", "named"),
    [
        ("in", None, "Secret in"),
        ("in", "out", "Secret in or Secret out"),
        ("same", "same", "Secret same"),
    ],
)
def test_the_secrets_that_a_broker_may_refuse_are_named(source: str, sink: str | None, named: str) -> None:
    spec = {
        "source": {**SPEC["source"], "credentials": source},
        "sink": {**SPEC["sink"], **({"credentials": sink} if sink else {})},
    }
    assert f"correct {named}, then: modelyard restart fraud" in why(unready("BrokerRefused", spec=spec)).next_steps


def test_keys_of_a_store_are_not_what_a_broker_refuses() -> None:
    sink = {"uri": "s3://lake/scored/", "credentials": "lake"}
    assert not any("lake" in each for each in why(unready("BrokerRefused", spec={"sink": sink})).next_steps)


def test_a_stream_that_is_gone_after_records_were_scored_is_not_to_be_made_again() -> None:
    steps = why(unready("StreamNotFound", partitions=HELD)).next_steps
    assert not any("make that stream" in each for each in steps)
    assert any("apply a ModelStream of another name" in each for each in steps)
    assert any("make that stream" in each for each in why(unready("StreamNotFound")).next_steps)
