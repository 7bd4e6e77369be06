"""What a ModelStream may say and what of it may change, as an API server enforces it from the definition."""

from typing import Any

import pytest

from apiserver_testing import KINDS, Object, make
from modelyard.api import load
from modelyard.api.stream import ModelStream
from modelyard.control.apiserver.admission import admit
from modelyard.control.apiserver.status import StatusError

KIND = KINDS["ModelStream"]
NATS = "nats://nats:4222"
SOURCE: Object = {"uri": NATS, "stream": "payments", "subjects": ["payments.in.*.>"]}
SINK: Object = {"uri": NATS, "stream": "scored", "subject": "payments.scored"}
FILES: Object = {"uri": "s3://lake/scored"}
ANOTHER = (
    "cannot be changed: a stream keeps its offsets by name; apply a ModelStream of another name to replay or to read "
    "elsewhere"
)


def stream(name: str = "fraud", **spec: Any) -> Object:
    return make("ModelStream", name, spec={"model": {"name": "fraud"}, "source": SOURCE, "sink": SINK, **spec})


def source(**changes: Any) -> Object:
    return stream(source={**SOURCE, **changes})


def sink(**changes: Any) -> Object:
    return stream(sink={**SINK, **changes})


def stored(obj: Object, old: Object | None = None) -> Object:
    return admit(KIND, obj, old)[0]


def refused(obj: Object, old: Object | None = None) -> str:
    with pytest.raises(StatusError) as error:
        admit(KIND, obj, old)
    assert (error.value.code, error.value.reason) == (422, "Invalid")
    return error.value.message


def test_a_small_stream_gets_its_defaults() -> None:
    spec = stored(stream())["spec"]
    assert {name: spec[name] for name in ("partitions", "maxDeliver", "replicas", "start", "suspend")} == {
        "partitions": 1,
        "maxDeliver": 5,
        "replicas": 1,
        "start": {"from": "latest"},
        "suspend": False,
    }
    assert spec["source"]["format"] == "json"
    assert "delivery" not in spec
    decoded = load.decode(stored(stream()))
    assert isinstance(decoded, ModelStream)
    assert decoded.spec.start.from_ == "latest"


@pytest.mark.parametrize(
    "obj",
    [
        source(uri="nats://local"),
        source(uri="tls://nats.example.org"),
        source(uri="nats://[::1]:4222"),
        source(uri="kafka://somewhere"),
        source(subjects=["$KV.prices.>", "a.*.c", ">"]),
        sink(format="raw", keep=["id"], credentials="nats"),
        stream(deadLetter={"subject": "payments.dead"}),
        stream(partitions=4, key={"token": 3}),
        stream(delivery="exactlyOnce", batch={"rows": 999, "wait": "10s"}),
        stream(batch={"rows": 10_000}),
        stream(start={"from": "earliest"}),
        stream(start={"time": "2026-11-01T00:00:00Z"}),
        stream(start={"sequence": 7}),
        stream(sink=FILES),
        stream(sink={"uri": "out", "format": "csv"}, delivery="exactlyOnce", deadLetter={}),
        stream(sink=FILES, batch={"rows": 1_000_000, "wait": "1h"}),
        stream(replicas=0, suspend=True),
    ],
)
def test_what_makes_a_stream_is_accepted(obj: Object) -> None:
    assert isinstance(load.decode(stored(obj)), ModelStream)


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (stream("a" * 41), "metadata.name is at most 40 characters, because revisions and runners are named after it"),
        (source(uri="nats://me:secret@nats:4222"), "expected nats://host:port, tls://host:port or nats://local"),
        (source(uri="nats://nats:4222/path"), "expected nats://host:port"),
        (source(uri="nats:4222"), "expected nats://host:port"),
        (source(stream="a.b"), "spec.source.stream"),
        (source(subjects=[]), "spec.source.subjects"),
        (source(subjects=[f"s{i}" for i in range(17)]), "spec.source.subjects"),
        (source(subjects=["a..b"]), "spec.source.subjects[0]"),
        (source(subjects=["a.>.b"]), "spec.source.subjects[0]"),
        (source(subjects=["a.b*"]), "spec.source.subjects[0]"),
        (source(format="csv"), "spec.source.format"),
        (sink(subject="a.*"), "spec.sink.subject"),
        (sink(uri="nats://me@nats"), "expected nats://host:port"),
        (sink(format="parquet"), "format is json, arrow or raw for messages, and parquet, csv, jsonl or arrow for"),
        (stream(sink={**FILES, "format": "json"}), "format is json, arrow or raw for messages"),
        (stream(sink={"uri": NATS}), "stream goes with nats:// and tls://"),
        (stream(sink={**FILES, "stream": "scored", "subject": "a"}), "stream goes with nats:// and tls://"),
        (stream(sink={"uri": NATS, "stream": "scored"}), "set stream and subject, or neither"),
        (stream(deadLetter={}), "deadLetter.subject names a subject of the sink's stream; for files set deadLetter"),
        (stream(sink=FILES, deadLetter={"subject": "a"}), "deadLetter.subject names a subject of the sink's stream"),
        (stream(deadLetter={"subject": SINK["subject"]}), "deadLetter.subject must differ from sink.subject"),
        (stream(deadLetter={"subject": "a.>"}), "spec.deadLetter.subject"),
        (stream(sink=FILES, delivery="atLeastOnce"), "files are always written exactly once: leave delivery out"),
        (stream(partitions=2), "key goes with partitions: set key.token for more than one"),
        (stream(key={"token": 3}), "key goes with partitions"),
        (stream(partitions=33, key={"token": 3}), "spec.partitions"),
        (stream(partitions=2, key={"token": 0}), "spec.key.token"),
        (stream(delivery="exactlyOnce", batch={"rows": 1000}), "batch.rows is at most 999 for messages with exactlyOn"),
        (stream(batch={"rows": 10_001}), "at most 10000 with atLeastOnce"),
        (stream(batch={"wait": "11s"}), "batch.wait is at most 10s for messages, and at most 1h for files"),
        (stream(sink=FILES, batch={"wait": "61m"}), "batch.wait is at most 10s for messages"),
        (stream(maxDeliver=0), "spec.maxDeliver"),
        (stream(replicas=33), "spec.replicas"),
        (stream(start={}), "set exactly one of from, time and sequence"),
        (stream(start={"from": "latest", "sequence": 1}), "set exactly one of from, time and sequence"),
        (stream(start={"time": "yesterday"}), "spec.start.time"),
        (stream(start={"sequence": 0}), "spec.start.sequence"),
        (stream(model={}), "set exactly one of name and uri"),
        (stream(env=[{"name": "MODELYARD_X", "value": "1"}]), "names that start with MODELYARD_ are reserved"),
    ],
)
def test_what_makes_no_stream_is_refused_with_its_place(obj: Object, expected: str) -> None:
    assert expected in refused(obj)


FOUR: Object = {"partitions": 4, "key": {"token": 3}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (stream(), source(uri="nats://other:4222")),
        (stream(), source(stream="other")),
        (stream(), source(subjects=["payments.in.1.>"])),
        (stream(), sink(uri="nats://other:4222")),
        (stream(), sink(stream="other")),
        (stream(), sink(subject="other")),
        (stream(), sink(format="raw")),
        (sink(format="raw"), stream()),
        (stream(), stream(delivery="exactlyOnce")),
        (stream(delivery="exactlyOnce"), stream()),
        (stream(), stream(**FOUR)),
        (stream(**FOUR), stream(**{**FOUR, "partitions": 8})),
        (stream(**FOUR), stream(**{**FOUR, "key": {"token": 2}})),
        (stream(), stream(start={"from": "earliest"})),
        (stream(sink=FILES), stream(sink={"uri": "s3://lake/other"})),
    ],
)
def test_what_decides_where_it_goes_on_cannot_be_changed(old: Object, new: Object) -> None:
    assert ANOTHER in refused(new, stored(old))


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "other"}},
        {"source": {**SOURCE, "format": "arrow", "columns": ["amount"], "credentials": "nats"}},
        {"sink": {**SINK, "keep": ["id"], "credentials": "nats"}},
        {"deadLetter": {"subject": "payments.dead"}},
        {"batch": {"rows": 512}},
        {"maxDeliver": 2},
        {"replicas": 3},
        {"suspend": True},
        {"delivery": "atLeastOnce"},
        {"resources": {"limits": {"cpu": 1}}},
        {"env": [{"name": "A", "value": "1"}]},
    ],
)
def test_how_records_are_scored_can_be_changed(change: Object) -> None:
    old = stored(stream())
    new = stored(stream(**change), old)
    assert load.decode(new) != load.decode(old)
    assert stored(stream(), new)["spec"] == old["spec"], "and back"


@pytest.mark.parametrize("obj", [stream(**FOUR), stream(sink=FILES), stream(start={"sequence": 7})])
def test_the_same_manifest_is_applied_again_without_a_change(obj: Object) -> None:
    old = stored(obj)
    assert stored(obj, old) == old


def test_a_status_of_a_stream_that_follows_is_stored() -> None:
    old = stored(stream(**FOUR))
    at = "2027-01-15T08:00:00Z"
    status = {
        "observedGeneration": 1,
        "delivery": "atLeastOnce",
        "partitions": [
            {"number": 0, "committed": 7, "lag": 0, "runner": "fraud-stream-00001.default-0"},
            {"number": 3, "committed": 9},
        ],
        "lag": 0,
        "records": 7,
        "counted": [
            {
                "runner": "fraud-stream-00001.default-0",
                "since": "2027-01-15T08:00:00.123456Z",
                "records": 7,
                "deadLetters": 0,
                "expired": 0,
            }
        ],
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Following", "message": "", "lastTransitionTime": at}
        ],
    }
    assert admit(KIND, {**old, "status": status}, old, subresource="status")[0]["status"] == status
    decoded = load.decode({**old, "status": status})
    assert isinstance(decoded, ModelStream)
    assert decoded.status.partitions is not None
    assert [each.committed for each in decoded.status.partitions] == [7, 9]


def test_scaling_goes_through_the_subresource() -> None:
    assert KIND.scale is not None
    assert (KIND.scale.spec_path, KIND.scale.status_path) == ("spec.replicas", "status.replicas")
    assert KIND.short_names == ("mstr",)
