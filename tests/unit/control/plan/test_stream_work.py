"""What a stream's runners are told, and what no runner could do."""

from typing import Any

import pytest

from modelyard.api import load
from modelyard.api.model import Model
from modelyard.api.stream import ModelStream
from modelyard.base.conditions import Reason
from modelyard.control.plan import stream_work
from modelyard.control.plan.revision import Inputs
from modelyard.control.plan.runtimes import Refusal
from modelyard.control.plan.views import StreamView
from modelyard.wire.work import LOCAL_BROKER, StartWork, StreamWork

Object = dict[str, Any]
NATS = "nats://nats:4222"
SOURCE: Object = {"uri": NATS, "stream": "payments", "subjects": ["payments.in.*.>"]}
SINK: Object = {"uri": NATS, "stream": "scored", "subject": "payments.scored"}


def _decoded(kind: str, name: str, **parts: Any) -> Any:
    metadata = {"name": name, "uid": name}
    return load.decode({"apiVersion": "modelyard.dev/v1alpha1", "kind": kind, "metadata": metadata, **parts})


def stream(**spec: Any) -> ModelStream:
    work = {"model": {"name": "forest"}, "source": SOURCE, "sink": SINK}
    found = _decoded("ModelStream", "fraud", spec={**work, **spec})
    assert isinstance(found, ModelStream)
    return found


FOREST: Model = _decoded(
    "Model", "forest", spec={"uri": "forest.onnx"}, status={"digest": "sha256:" + "a" * 64, "format": "onnx"}
)


def resolved(declared: ModelStream) -> Inputs | Refusal:
    return stream_work.resolve(StreamView(stream=declared, models=(FOREST,)))


def work(declared: ModelStream) -> StreamWork:
    inputs = resolved(declared)
    assert isinstance(inputs, Inputs)
    found = stream_work.record(declared, inputs, 1).unit.work.stream
    assert found is not None
    return found


def refused(declared: ModelStream) -> tuple[Reason, str]:
    found = resolved(declared)
    assert isinstance(found, Refusal)
    return found.reason, found.message


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a.b", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "*.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a.b", True),
        ("a.*.c", "a.b.>", True),
        ("a.*.c", "a.b.d", False),
        ("a.b.>", "a.c.>", False),
    ],
)
def test_whether_two_filters_overlap(one: str, other: str, expected: bool) -> None:
    assert stream_work.overlap(one, other) is expected
    assert stream_work.overlap(other, one) is expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"source": {**SOURCE, "subjects": ["a.*.c", "a.b.*"]}}, "a.*.c and a.b.* overlap"),
        ({"sink": {**SINK, "stream": "payments", "subject": "payments.in.0.x"}}, "spec.sink.subject: payments.in.0.x"),
        (
            {"sink": {**SINK, "stream": "payments"}, "deadLetter": {"subject": "payments.in.dead.x"}},
            "spec.deadLetter.subject: payments.in.dead.x is within payments.in.*.>",
        ),
        ({"partitions": 2, "key": {"token": 2}}, "spec.source.subjects[0]: token 2 of payments.in.*.> must be *"),
        ({"partitions": 2, "key": {"token": 9}}, "it is nothing"),
        ({"partitions": 2, "key": {"token": 4}}, "it is >"),
    ],
)
def test_what_a_schema_cannot_say_is_refused(spec: Object, expected: str) -> None:
    reason, message = refused(stream(**spec))
    assert reason is Reason.INVALID
    assert expected in message


@pytest.mark.parametrize(
    ("spec", "path", "expected"),
    [
        ({"source": {**SOURCE, "uri": "nats://nats:99999"}}, "spec.source.uri", "there is no port 99999"),
        ({"sink": {**SINK, "uri": "tls://[::1]:0"}}, "spec.sink.uri", "there is no port 0"),
        ({"source": {**SOURCE, "uri": LOCAL_BROKER, "credentials": "x"}}, "spec.source.credentials", "leave it out"),
        ({"source": {**SOURCE, "columns": ["a", "b", "a"]}}, "spec.source.columns", "a is there twice"),
        ({"sink": {**SINK, "keep": ["id", "id"]}}, "spec.sink.keep", "id is there twice"),
    ],
)
def test_what_could_never_work_is_refused_before_anything_runs(spec: Object, path: str, expected: str) -> None:
    reason, message = refused(stream(**spec))
    assert reason == Reason.INVALID
    assert path in message
    assert expected in message


@pytest.mark.parametrize("uri", ["nats://nats", "tls://[::1]:4222", LOCAL_BROKER])
def test_addresses_of_brokers_that_can_be_right_pass(uri: str) -> None:
    assert isinstance(resolved(stream(source={**SOURCE, "uri": uri})), Inputs)


def test_results_may_lie_beside_the_source_on_another_subject() -> None:
    assert work(stream(sink={**SINK, "stream": "payments"})).sink.stream == "payments"


@pytest.mark.parametrize("uri", ["kafka://broker:9092", "https://somewhere", "s3://lake/in"])
def test_pairs_that_cannot_be_committed_together_are_refused(uri: str) -> None:
    reason, message = refused(stream(source={**SOURCE, "uri": uri}))
    assert reason is Reason.UNSUPPORTED
    assert f"{uri.partition(':')[0]} to nats is not supported" in message
    assert "supported are NATS to NATS and NATS to files" in message


def test_a_sink_of_files_has_its_own_defaults() -> None:
    found = work(stream(sink={"uri": "s3://lake/out"}, deadLetter={}, source={**SOURCE, "uri": LOCAL_BROKER}))
    assert (found.delivery, found.sink.stream, found.sink.subject) == ("exactlyOnce", "", "")
    assert (found.batch.rows, found.batch.wait_seconds) == (100_000, 10.0)
    assert found.dead_letter == stream_work.BESIDE_THE_FILES
    asked = work(stream(sink={"uri": "out"}, batch={"rows": 7, "wait": "1m"}))
    assert (asked.batch.rows, asked.batch.wait_seconds, asked.dead_letter) == (7, 60.0, "")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (None, StartWork(at="latest")),
        ({"from": "earliest"}, StartWork(at="earliest")),
        ({"time": "1970-01-01T00:01:00Z"}, StartWork(at="time", time=60.0)),
        ({"sequence": 7}, StartWork(at="sequence", sequence=7)),
    ],
)
def test_where_it_starts(start: Object | None, expected: StartWork) -> None:
    assert work(stream(**({"start": start} if start else {}))).start == expected


@pytest.mark.parametrize("change", [{"replicas": 5}, {"suspend": True}, {"delivery": None}])
def test_scaling_and_pausing_make_no_revision(change: Object) -> None:
    one, other = stream(), stream(**change)
    inputs = resolved(one)
    assert isinstance(inputs, Inputs)
    assert stream_work.declared(one, inputs) == stream_work.declared(other, inputs)


@pytest.mark.parametrize(
    "change",
    [
        {"batch": {"rows": 7}},
        {"maxDeliver": 2},
        {"deadLetter": {"subject": "dead"}},
        {"sink": {**SINK, "keep": ["id"]}},
        {"source": {**SOURCE, "credentials": "nats"}},
        {"source": {**SOURCE, "format": "raw"}},
        {"resources": {"limits": {"cpu": 2}}},
        {"env": [{"name": "A", "value": "1"}]},
    ],
)
def test_what_runners_are_told_makes_a_revision(change: Object) -> None:
    def of(declared: ModelStream) -> Object:
        inputs = resolved(declared)
        assert isinstance(inputs, Inputs)
        return stream_work.declared(declared, inputs)

    assert of(stream()) != of(stream(**change))
