"""Streams are made where they are absent, and else checked: what they lack is named, everything at once."""

import asyncio
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.setup import prepare_sink, prepare_source
from modelyard.runtime.streams.nats.source import Source
from modelyard.runtime.streams.nats.subjects import (
    Transform,
    claims_key,
    covers,
    durable,
    offset_subject,
    overlaps,
    partition_transform,
    source_subjects,
    token_of,
)
from modelyard.wire.work import StartWork, StreamWork
from nats_testing import Bare, Nats, partitioned, stream_work

SWITCHES = {"allow_atomic": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True}


async def refusal(broker: Broker, work: StreamWork, *, sink: bool = False) -> Refused:
    with pytest.raises(Refused) as refused:
        await (prepare_sink if sink else prepare_source)(broker, work)
    return refused.value


async def test_a_sink_is_made_for_exactly_once(broker: Broker, bare: Bare) -> None:
    await prepare_sink(broker, stream_work(broker.uri, "made"))
    config = (await bare.info("made_out"))["config"]
    assert config["subjects"] == ["made.out", "made.dead", "made.out.__offset.>"]
    assert {name: config.get(name) for name in (*SWITCHES, "retention", "storage", "allow_direct")} == {
        **SWITCHES,
        "retention": "limits",
        "storage": "file",
        "allow_direct": True,
    }
    await prepare_sink(broker, stream_work(broker.uri, "made"))


async def test_everything_that_a_sink_lacks_is_named_at_once(broker: Broker, bare: Bare) -> None:
    await bare.stream("poor_out", ["poor.out"], max_msgs=10, retention="interest")
    refused = await refusal(broker, stream_work(broker.uri, "poor"), sink=True)
    assert refused.reason == Reason.STREAM_UNSUITABLE
    for each in (
        "allow_atomic: true",
        "allow_msg_ttl: true",
        "allow_rollup_hdrs: true",
        "retention: limits",
        "discard: new",
        "poor.dead",
        "poor.out.__offset.>",
        "nats stream edit poor_out",
    ):
        assert each in refused.message
    assert "poor.out," not in refused.message


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"max_bytes": 10_000}, "discard: new"),
        ({"max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": True}, "discard_new_per_subject"),
        ({"no_ack": True, "allow_atomic": False}, "no_ack: false"),
        ({"subject_transform": {"src": "{}.out", "dest": "other.out"}}, "subject_transform"),
        ({"allow_atomic": False, "persist_mode": "async"}, "persist_mode: default"),
    ],
    ids=["max_bytes", "per_subject", "no_ack", "transform", "async"],
)
async def test_settings_that_harm_offsets_are_refused(
    broker: Broker, bare: Bare, config: dict[str, Any], named: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    if "subject_transform" in config:
        config = {"subject_transform": {"src": f"{name}.out", "dest": "other.out"}}
    await bare.stream(f"{name}_out", [f"{name}.>"], **SWITCHES | config)
    refused = await refusal(broker, stream_work(broker.uri, name), sink=True)
    assert refused.reason == Reason.STREAM_UNSUITABLE
    assert named in refused.message


async def test_limits_that_do_no_harm_pass(broker: Broker, bare: Bare) -> None:
    limits = {"max_msgs": 1000, "discard": "new", "max_age": 10**12, "max_msgs_per_subject": 50}
    await bare.stream("good_out", ["good.>"], **SWITCHES, **limits)
    await prepare_sink(broker, stream_work(broker.uri, "good"))


async def test_at_least_once_needs_only_the_subjects(broker: Broker, bare: Bare) -> None:
    await bare.stream("plain_out", ["plain.out"], max_msgs=5)
    work = stream_work(broker.uri, "plain", delivery="atLeastOnce")
    refused = await refusal(broker, work, sink=True)
    assert refused.reason == Reason.SUBJECT_NOT_FOUND
    assert "plain.dead" in refused.message
    assert "__offset" not in refused.message
    await prepare_sink(broker, msgspec.structs.replace(work, dead_letter=""))


async def test_subjects_are_added_to_streams_that_were_made_here_and_to_no_others(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "wider", dead_letter="")
    await prepare_source(broker, work)
    await prepare_sink(broker, work)
    source = msgspec.structs.replace(work.source, subjects=("wider.in", "wider.more.>"))
    await prepare_source(broker, msgspec.structs.replace(work, source=source))
    await prepare_sink(broker, msgspec.structs.replace(work, dead_letter="wider.dead"))
    for stream, added in (("wider_in", "wider.more.>"), ("wider_out", "wider.dead")):
        config = (await bare.info(stream))["config"]
        assert added in config["subjects"]
        assert len(config["subjects"]) == len(set(config["subjects"]))
    await bare.stream("foreign_out", ["foreign.out"])
    foreign = stream_work(broker.uri, "foreign", dead_letter="foreign.dead", delivery="atLeastOnce")
    assert (await refusal(broker, foreign, sink=True)).reason == Reason.SUBJECT_NOT_FOUND
    assert (await bare.info("foreign_out"))["config"]["subjects"] == ["foreign.out"]


async def test_streams_that_add_subjects_at_the_same_moment_all_get_theirs(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "crowd", dead_letter="")
    await prepare_sink(broker, work)
    dead = [f"crowd.dead{number}" for number in range(4)]
    await asyncio.gather(*(prepare_sink(broker, msgspec.structs.replace(work, dead_letter=each)) for each in dead))
    assert set(dead) <= set((await bare.info("crowd_out"))["config"]["subjects"])


async def test_a_subject_that_another_stream_takes_cannot_be_added(broker: Broker, bare: Bare) -> None:
    await bare.stream("taker", ["narrow.dead"])
    work = stream_work(broker.uri, "narrow", dead_letter="")
    await prepare_sink(broker, work)
    refused = await refusal(broker, msgspec.structs.replace(work, dead_letter="narrow.dead"), sink=True)
    assert refused.reason == Reason.STREAM_UNSUITABLE
    assert "cannot take narrow.dead: another stream does already" in refused.message


async def test_subjects_that_another_stream_takes_are_told(broker: Broker, bare: Bare) -> None:
    await bare.stream("theirs", ["taken.>"])
    refused = await refusal(broker, stream_work(broker.uri, "taken"), sink=True)
    assert refused.reason == Reason.STREAM_UNSUITABLE
    assert "taken.out" in refused.message


async def test_a_source_that_never_holds_a_subject_is_refused(broker: Broker, bare: Bare) -> None:
    await bare.stream("wrong_in", ["wrong.orders", "wrong.eu.*"])
    refused = await refusal(broker, stream_work(broker.uri, "wrong"))
    assert refused.reason == Reason.SUBJECT_NOT_FOUND
    assert "wrong.in" in refused.message
    assert "wrong.orders, wrong.eu.*" in refused.message


async def test_a_work_queue_is_refused_for_exactly_once(broker: Broker, bare: Bare) -> None:
    await bare.stream("queue_in", ["queue.in"], retention="workqueue")
    work = stream_work(broker.uri, "queue")
    refused = await refusal(broker, work)
    assert refused.reason == Reason.STREAM_UNSUITABLE
    assert "retention: workqueue" in refused.message
    await prepare_source(broker, msgspec.structs.replace(work, delivery="atLeastOnce"))


async def test_a_sink_that_would_be_read_again_is_refused(broker: Broker, bare: Bare) -> None:
    await bare.stream("loop_in", ["loop.>"], **SWITCHES)
    work = stream_work(broker.uri, "loop")
    same = msgspec.structs.replace(
        work,
        source=msgspec.structs.replace(work.source, subjects=("loop.>",)),
        sink=msgspec.structs.replace(work.sink, stream="loop_in"),
    )
    assert "scored again" in (await refusal(broker, same)).message
    narrow = msgspec.structs.replace(same, source=work.source)
    await prepare_source(broker, narrow)
    await prepare_sink(broker, narrow)


async def test_a_source_with_partitions_is_made_with_the_transform(broker: Broker, bare: Bare) -> None:
    work = partitioned(stream_work(broker.uri, "parts"), 4)
    await prepare_source(broker, work)
    for n in range(40):
        assert "error" not in await bare.publish(f"parts.in.k{n}", "x")
    assert "error" not in await bare.publish("parts.in.3.mine.too", "x")
    subjects = await bare.subjects("parts_in")
    assert {each.split(".")[2] for each in subjects} == {"0", "1", "2", "3"}
    assert {each.split(".")[3] for each in subjects} == {*(f"k{n}" for n in range(40)), "mine"}
    with pytest.raises(Exception, match="no responders"):
        await bare.publish("parts.in.4.k", "x")  # of which nobody would ever take care
    await prepare_source(broker, work)
    lags = []
    for partition in range(4):
        async with Source(broker, work, partition).read(0) as reading:
            lags.append(await reading.lag())
    assert None not in lags
    assert sum(each or 0 for each in lags) == 41


async def test_a_source_whose_subjects_carry_no_numbers_is_refused_with_the_transform(
    broker: Broker, bare: Bare
) -> None:
    await bare.stream("bare_in", ["bare.in.*"])
    refused = await refusal(broker, partitioned(stream_work(broker.uri, "bare"), 4))
    assert refused.reason == Reason.PARTITIONS_MISSING
    transform = '{"src": "bare.in.*", "dest": "bare.in.{{partition(4,1)}}.{{wildcard(1)}}"}'
    assert transform in refused.message
    # What it prints is what works.
    body = {**(await bare.info("bare_in"))["config"], "subject_transform": msgspec.json.decode(transform)}
    assert "error" not in await bare.api("STREAM.UPDATE.bare_in", body)
    await prepare_source(broker, partitioned(stream_work(broker.uri, "bare"), 4))


async def test_a_source_that_holds_other_subjects_is_refused_with_an_example(broker: Broker, bare: Bare) -> None:
    await bare.stream("mixed_in", ["mixed.in.>"])
    work = partitioned(stream_work(broker.uri, "mixed"), 2)
    await prepare_source(broker, work)
    for each in ("0.a", "1.b", "0.c"):
        await bare.publish(f"mixed.in.{each}", "x")
    await prepare_source(broker, work)
    await bare.publish("mixed.in.2.z", "x")
    refused = await refusal(broker, work)
    assert refused.reason == Reason.PARTITIONS_MISSING
    assert "holds mixed.in.2.z" in refused.message


async def test_a_transform_for_another_number_of_partitions_is_refused(broker: Broker, bare: Bare) -> None:
    eight = partitioned(stream_work(broker.uri, "eight"), 8)
    await prepare_source(broker, eight)
    refused = await refusal(broker, msgspec.structs.replace(eight, partitions=4))
    assert refused.reason == Reason.PARTITIONS_MISSING
    assert "numbers 8 partitions" in refused.message


async def test_what_was_stored_before_the_transform_matters_only_if_it_is_to_be_read(
    broker: Broker, bare: Bare
) -> None:
    await bare.stream("old_in", ["old.in.*"])
    await bare.publish("old.in.k", "x")
    work = partitioned(stream_work(broker.uri, "old"), 2)
    transform = partition_transform("old.in.*.>", 3, 2).as_config()
    config = (await bare.info("old_in"))["config"]
    assert "error" not in await bare.api("STREAM.UPDATE.old_in", {**config, "subject_transform": transform})
    told = (await refusal(broker, work)).message
    assert "still holds old.in.k" in told
    assert "nats stream purge old_in" in told
    await prepare_source(broker, msgspec.structs.replace(work, start=StartWork(at="latest")))


async def test_streams_fed_by_others_pass(broker: Broker, bare: Bare) -> None:
    await bare.stream("origin", ["origin.in.*"])
    source = {"name": "origin", "subject_transforms": [{"src": "origin.in.*", "dest": "fed.in.{{partition(2,1)}}.k"}]}
    await bare.stream("fed_in", [], sources=[source])
    await prepare_source(broker, partitioned(stream_work(broker.uri, "fed"), 2))


@pytest.mark.parametrize(
    ("subject", "token", "source", "destination"),
    [
        ("payments.in.*.>", 3, "payments.in.*", "payments.in.{{partition(4,1)}}.{{wildcard(1)}}"),
        ("payments.in.*.*", 3, "payments.in.*", "payments.in.{{partition(4,1)}}.{{wildcard(1)}}"),
        ("p.*.a.*.b.*", 2, "p.a.*.b.*", "p.{{partition(4,1,2)}}.a.{{wildcard(1)}}.b.{{wildcard(2)}}"),
        ("p.*.in.*.>", 4, "p.*.in.*", "p.{{wildcard(1)}}.in.{{partition(4,2)}}.{{wildcard(2)}}"),
        ("p.in.*", 3, "p.in.*", "p.in.{{partition(4,1)}}"),
        ("p.in.*.done", 3, "p.in.*.done", "p.in.{{partition(4,1)}}.done"),
    ],
)
async def test_the_transform_is_one_that_the_broker_takes(
    server: Nats, broker: Broker, bare: Bare, subject: str, token: int, source: str, destination: str
) -> None:
    found = partition_transform(subject, token, 4)
    assert found == Transform(source, destination)
    assert found.numbers(token) == 4
    assert overlaps(found.stored, subject)
    work = stream_work(server.uri, "any", key_token=token, partitions=4)
    work = msgspec.structs.replace(work, source=msgspec.structs.replace(work.source, stream="any", subjects=(subject,)))
    try:
        await prepare_source(broker, work)
    finally:
        await bare.api("STREAM.DELETE.any")


def test_several_filters_have_no_transform_and_publishers_write_numbers() -> None:
    work = stream_work("nats://x", "two", key_token=2, partitions=2)
    work = msgspec.structs.replace(work, source=msgspec.structs.replace(work.source, subjects=("a.*.>", "b.*.>")))
    assert source_subjects(work) == (("a.0.>", "b.0.>", "a.1.>", "b.1.>"), None)


tokens = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4)
filters = st.builds(lambda found, tail: ".".join([*found, *tail]), tokens, st.sampled_from([[], [">"]]))


def matches(pattern: str, subject: str) -> bool:
    expression = ".".join("[^.]+" if each == "*" else ".+" if each == ">" else each for each in pattern.split("."))
    return re.fullmatch(expression.replace(".[", "\\.[").replace("..+", "\\..+"), subject) is not None


@given(filters, filters)
def test_filters_meet_exactly_where_a_subject_matches_both(left: str, right: str) -> None:
    subjects = [""]
    every: list[str] = []
    for _ in range(6):
        subjects = [f"{each}.{token}".lstrip(".") for each in subjects for token in ("a", "b", "c")]
        every += subjects
    both = [each for each in every if matches(left, each) and matches(right, each)]
    assert overlaps(left, right) == overlaps(right, left) == bool(both)
    mine = [each for each in every if matches(right, each)]
    assert covers(left, right) == all(matches(left, each) for each in mine)


def test_names_do_not_meet() -> None:
    one = msgspec.structs.replace(stream_work("nats://a", "x"), name="a-b.c")
    two = msgspec.structs.replace(one, name="a.b-c")
    assert durable(one, 0) != durable(two, 0)
    assert offset_subject(one, 0) != offset_subject(two, 0)
    assert claims_key(one) != claims_key(two)
    assert claims_key(one) != claims_key(msgspec.structs.replace(one, sink=stream_work("nats://b", "x").sink))
    assert token_of("sha256:abc") != "sha256:abc"
    assert token_of("fraud-7d9") == "fraud-7d9"
