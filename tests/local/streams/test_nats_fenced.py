"""Exactly-once commits against a real broker, which is killed, cut off and filled up meanwhile."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats import fenced
from modelyard.runtime.streams.nats.batches import MOST_OUTGOING
from modelyard.runtime.streams.nats.broker import Broker, connect
from modelyard.runtime.streams.nats.fenced import FencedLink
from modelyard.runtime.streams.nats.setup import prepare_sink, prepare_source
from modelyard.runtime.streams.nats.subjects import offset_subject, opening_subject
from modelyard.runtime.streams.port import Away, Busy, Committed, Fenced, Link, Torn, Unknown
from modelyard.runtime.streams.records import Group, Message, Offset, Outgoing
from modelyard.wire.work import StartWork, StreamWork
from nats_testing import Bare, Nats, Wire, scored, stream_work, until


async def prepared(broker: Broker, work: StreamWork) -> FencedLink:
    await prepare_source(broker, work)
    await prepare_sink(broker, work)
    return FencedLink(broker, broker, work, 0)


async def begun(link: Link) -> Offset:
    outcome = await link.begin()
    assert isinstance(outcome, Committed)
    return outcome.offset


async def read(link: Link, after: Offset, count: int) -> Sequence[Message]:
    found: list[Message] = []
    async with link.read(after) as reading:
        while len(found) < count:
            found += await reading.next(count - len(found))
    return found


async def committed(link: Link, offset: Offset, group: Group, expired: int = 0) -> Offset:
    outcome = await link.commit(offset, group, expired)
    assert isinstance(outcome, Committed), outcome
    return outcome.offset


async def test_a_commit_shows_outputs_dead_letters_and_the_offset_at_once(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "atomic")
    link = await prepared(broker, work)
    await bare.fill("atomic.in", [f"{n}" for n in range(5)])
    offset = await begun(link)
    messages = await read(link, offset, 5)
    assert [each.payload for each in messages] == [b"0", b"1", b"2", b"3", b"4"]
    assert [each.position for each in messages] == [1, 2, 3, 4, 5]
    assert messages[0].at > 1.7e9
    after = await committed(link, offset, scored(messages, dead=[3]))
    assert (after.position, after.records, after.dead_letters) == (5, 5, 1)
    ours = {offset_subject(work, 0): 1, opening_subject(work, 0): 1}
    assert await bare.subjects("atomic_out") == {"atomic.out": 4, "atomic.dead": 1, **ours}
    assert await link.recover() == after
    sequences = [sequence for sequence, _, _ in await bare.read("atomic_out", "atomic.*")]
    assert sequences == list(range(after.fence - 5, after.fence))  # nothing of anybody else between them


async def test_the_offset_stays_one_message(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "rollup")
    link = await prepared(broker, work)
    await bare.fill("rollup.in", ["x"] * 6)
    offset = await begun(link)
    for each in await read(link, offset, 6):
        offset = await committed(link, offset, scored([each]))
    found = await bare.subjects("rollup_out")
    assert (found[offset_subject(work, 0)], found[opening_subject(work, 0)]) == (1, 1)


async def test_a_group_that_became_nothing_moves_the_offset(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, stream_work(broker.uri, "nothing"))
    await bare.fill("nothing.in", ["x"])
    offset = await begun(link)
    messages = tuple(await read(link, offset, 1))
    after = await committed(link, offset, Group(messages=messages, outgoing=(), records=0), expired=7)
    assert (after.position, after.expired) == (1, 7)
    assert await link.recover() == after


async def test_of_two_runners_with_one_offset_one_commits(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "fence")
    link, other = await prepared(broker, work), FencedLink(broker, broker, work, 0)
    await bare.fill("fence.in", ["x"] * 4)
    offset = await begun(link)
    assert isinstance(await other.begin(), Fenced)
    messages = await read(link, offset, 4)
    assert await other.recover() == offset
    outcomes = await asyncio.gather(*(each.commit(offset, scored(messages), 0) for each in (link, other)))
    assert sorted(type(each).__name__ for each in outcomes) == ["Committed", "Fenced"]
    assert (await bare.subjects("fence_out"))["fence.out"] == 4


async def test_headers_are_kept_but_no_orders_to_the_broker(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, stream_work(broker.uri, "headers"))
    orders = {"Nats-TTL": "1s", "nats-expected-last-sequence": "999", "Nats-Rollup": "all", "Nats-Msg-Id": "a"}
    await bare.fill("headers.in", ["x"])
    offset = await begun(link)
    (message,) = await read(link, offset, 1)
    out = [
        Outgoing(position=1, payload=b"y", headers={"ce-id": "7", "X-Name": "Käse", "bad name": "no", **orders})
        for _ in range(2)
    ]
    await committed(link, offset, Group(messages=(message,), outgoing=tuple(out), records=1))
    found = await bare.read("headers_out", "headers.out")
    assert len(found) == 2
    for _, _, headers in found:
        assert {name: value for name, value in headers.items() if not name.startswith("Nats-Batch")} == {
            "ce-id": "7",
            "X-Name": "Käse",
            "Modelyard-Source-Sequence": "1",
        }


async def test_more_than_a_batch_holds_is_refused_before_anything_is_sent(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, stream_work(broker.uri, "much"))
    await bare.fill("much.in", ["x"])
    offset = await begun(link)
    (message,) = await read(link, offset, 1)

    def group(count: int) -> Group:
        return Group(messages=(message,), outgoing=(Outgoing(position=1, payload=b"y"),) * count, records=count)

    with pytest.raises(Refused, match=r"batch\.rows"):
        await link.commit(offset, group(MOST_OUTGOING + 1), 0)
    assert "much.out" not in await bare.subjects("much_out")
    await committed(link, offset, group(MOST_OUTGOING))
    assert (await bare.subjects("much_out"))["much.out"] == MOST_OUTGOING


async def test_what_the_broker_would_not_take_is_refused_before_anything_is_sent(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, stream_work(broker.uri, "large"))
    await bare.fill("large.in", ["x"])
    offset = await begun(link)
    (message,) = await read(link, offset, 1)
    most = (await broker.session()).most_bytes
    for payload, headers in ((b"y" * most, {}), (b"y" * (most - 1000), {"long": "z" * 1000})):
        large = Outgoing(position=1, payload=payload, headers=headers)
        with pytest.raises(Refused, match="max_payload") as refused:
            await link.commit(offset, Group(messages=(message,), outgoing=(large,), records=1), 0)
        assert refused.value.reason == Reason.RECORD_FAILED
    assert broker.connected
    fits = Outgoing(position=1, payload=b"y" * (most - 1000))
    await committed(link, offset, Group(messages=(message,), outgoing=(fits,) * 5, records=1))


async def test_after_a_lost_reply_nobody_knows_and_the_offset_tells(server: Nats, tmp_path: Path, bare: Bare) -> None:
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        link = await prepared(broker, stream_work(wire.uri, "lost"))
        await bare.fill("lost.in", ["a", "b"])
        offset = await begun(link)
        messages = await read(link, offset, 2)
        wire.answers = False
        commit = asyncio.create_task(link.commit(offset, scored(messages[:1]), 0))
        await until(lambda: _has(bare, "lost_out", "lost.out", 1))
        wire.cut()
        assert isinstance(await commit, Unknown)
        wire.answers = True
        after = await _recovered(link)
        assert after is not None
        assert after.position == 1
        wire.forwards = False  # now the commit itself is lost
        commit = asyncio.create_task(link.commit(after, scored(messages[1:]), 0))
        await asyncio.sleep(0)
        wire.cut()
        assert isinstance(await commit, Unknown)
        wire.forwards = True
        assert await _recovered(link) == after
        await committed(link, after, scored(messages[1:]))
        assert (await bare.subjects("lost_out"))["lost.out"] == 2


async def test_pieces_of_an_abandoned_commit_never_come_later(server: Nats, tmp_path: Path, bare: Bare) -> None:
    """nats-py would keep what is published while it is not connected, and send it on the next connection."""
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        link = await prepared(broker, stream_work(wire.uri, "pieces"))
        await bare.fill("pieces.in", ["a"])
        offset = await begun(link)
        messages = await read(link, offset, 1)
        session = await broker.session()
        wire.accepts = False
        wire.cut()  # of which the client knows nothing yet
        assert isinstance(await link.commit(offset, scored(messages), 0), Unknown)
        await until(lambda: _lost(broker))
        with pytest.raises(Away):
            await link.commit(offset, scored(messages), 0)
        assert session.lost
        wire.accepts = True
        assert await _recovered(link) == offset
        assert "pieces.out" not in await bare.subjects("pieces_out")


async def test_a_stream_with_too_many_open_batches_is_busy(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, stream_work(broker.uri, "open"))
    await bare.fill("open.in", ["a"])
    offset = await begun(link)
    messages = await read(link, offset, 1)
    for n in range(50):
        await bare.client.publish("open.out", b"", headers={"Nats-Batch-Id": f"{n}", "Nats-Batch-Sequence": "1"})
    await bare.client.flush()
    outcome = await link.commit(offset, scored(messages), 0)
    assert isinstance(outcome, Busy)
    assert "inflight" in outcome.message


async def test_a_full_stream_is_busy_and_says_so(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "full")
    switches = {"allow_atomic": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True}
    await bare.stream("full_out", ["full.out", "full.dead", "full.out.>"], max_bytes=2000, discard="new", **switches)
    link = await prepared(broker, work)
    await bare.fill("full.in", ["x" * 300] * 9)
    offset = await begun(link)
    messages = await read(link, offset, 9)
    outcome = await link.commit(offset, scored(messages), 0)
    assert isinstance(outcome, Busy)
    assert outcome.reason == Reason.BROKER_FULL
    assert await link.recover() == offset  # nothing of it is there
    assert "full.out" not in await bare.subjects("full_out")
    await committed(link, offset, scored(messages[:2]))


async def test_the_offset_outlives_what_it_belongs_to(broker: Broker, bare: Bare) -> None:
    switches = {"allow_atomic": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True}
    second = 10**9
    await bare.stream(
        "age_out", ["age.out", "age.dead", "age.out.>"], max_age=second, duplicate_window=second // 2, **switches
    )
    work = stream_work(broker.uri, "age")
    link = await prepared(broker, work)
    await bare.fill("age.in", ["x", "y"])
    offset = await begun(link)
    messages = await read(link, offset, 2)
    offset = await committed(link, offset, scored(messages[:1]))
    await until(lambda: _only_the_offset(bare, work))
    assert await link.recover() == offset
    await committed(link, offset, scored(messages[1:]))


async def test_an_offset_that_somebody_removed_is_seen_as_none(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "gone")
    link = await prepared(broker, work)
    await bare.fill("gone.in", ["a", "b"])
    offset = await begun(link)
    messages = await read(link, offset, 2)
    await committed(link, offset, scored(messages))
    await bare.api("STREAM.PURGE.gone_out", {"filter": offset_subject(work, 0)})
    assert await link.recover() is None
    await committed(link, await begun(link), scored(messages))  # to score everything again is what was wanted
    assert (await bare.subjects("gone_out"))["gone.out"] == 4


async def test_an_offset_of_another_stream_is_refused(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "again")
    link = await prepared(broker, work)
    await begun(link)
    await bare.api("STREAM.DELETE.again_in")
    with pytest.raises(Refused) as refused:
        await link.recover()
    assert refused.value.reason == Reason.STREAM_NOT_FOUND
    await prepare_source(broker, work)
    with pytest.raises(Refused, match="made again") as refused:
        await link.recover()
    assert refused.value.reason == Reason.SOURCE_REPLACED


async def test_a_partition_begins_where_start_says(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "start")
    await prepared(broker, work)
    await bare.fill("start.in", [f"{n}" for n in range(4)])
    (third,) = await read(FencedLink(broker, broker, work, 0), Offset(position=2), 1)
    middle = third.at - 1e-6  # as a number of seconds it may be rounded up
    await bare.api("STREAM.PURGE.start_in", {"seq": 2})
    for start, position in (
        (StartWork(at="latest"), 4),
        (StartWork(at="earliest"), 1),
        (StartWork(at="sequence", sequence=3), 2),
        (StartWork(at="time", time=middle), 2),
        (StartWork(at="time", time=0), 1),
        (StartWork(at="time", time=4e9), 4),
    ):
        one = stream_work(broker.uri, "start", start=start)
        assert (await begun(FencedLink(broker, broker, one, 0))).position == position, start
        await bare.api("STREAM.PURGE.start_out", {"filter": offset_subject(work, 0)})


async def test_a_broker_killed_during_commits_neither_loses_nor_doubles(tmp_path: Path) -> None:
    total = 1500
    with Nats(tmp_path) as server:
        async with connect(server.uri, {}, "", tmp_path) as broker:
            work = stream_work(broker.uri, "kill")
            await prepared(broker, work)
            async with server.client() as bare:
                await bare.fill("kill.in", [f"{n}" for n in range(total)])
            async with asyncio.TaskGroup() as group:
                for _ in range(2):  # both think that the partition is theirs
                    group.create_task(_follow(FencedLink(broker, broker, work, 0), total))
                for _ in range(3):
                    await asyncio.sleep(0.25)  # a fault at any moment, not a wait for something
                    await asyncio.to_thread(server.restart)
            async with server.client() as bare:
                found = await bare.read("kill_out", "kill.out")
    assert [payload for _, payload, _ in found] == [f"scored {n}".encode() for n in range(total)]


async def test_a_disk_that_fills_up_in_the_middle_of_a_commit_doubles_nothing(
    broker: Broker, bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker stores a part of the batch then, and answers nothing. The source is at another broker."""
    monkeypatch.setattr(fenced, "_COMMIT_SECONDS", 1.0)
    with Nats(tmp_path, jetstream="max_file_store: 40960") as server:
        async with connect(server.uri, {}, "", tmp_path) as sink:
            work = stream_work(server.uri, "half")
            await prepare_source(broker, work)
            await prepare_sink(sink, work)
            await bare.fill("half.in", ["x" * 9000 + f" {n}" for n in range(8)])
            link = FencedLink(broker, sink, work, 0)
            offset = await begun(link)
            group = scored(await read(link, offset, 8), dead=[2])
            assert isinstance(await link.commit(offset, group, 0), Unknown)
            async with server.client() as there:
                visible = await there.subjects("half_out", "half.*")
            assert 0 < sum(visible.values()) < 8, "the broker has learned better: leftovers.py may go"
            assert visible["half.dead"] == 1
            assert await link.recover() == offset
            full = await link.commit(offset, group, 0)
            assert isinstance(full, Busy)
            assert full.reason == Reason.BROKER_FULL
            for limit in (65_000, 10**9):  # somebody makes room, at first too little
                server.jetstream = f"max_file_store: {limit}"
                await asyncio.to_thread(server.restart)
                link = FencedLink(broker, sink, work, 0)  # of a runner that knows nothing
                assert await _recovered(link) == offset
                outcome = await link.commit(offset, group, 0)
                assert isinstance(outcome, Committed) == (limit == 10**9), outcome
            async with server.client() as there:
                found = await there.read("half_out", "half.*")
    assert [payload.split()[-1] for _, payload, _ in found] == [f"{n}".encode() for n in range(8)]


async def _follow(link: FencedLink, total: int) -> None:
    """What a lane does, without a model."""
    while True:
        with suppress(Away, Torn):
            offset = await link.recover()
            if offset is None:
                await link.begin()
                continue
            if offset.position >= total:
                return
            async with AsyncExitStack() as stack:
                reading = await stack.enter_async_context(link.read(offset))
                while offset.position < total:
                    outcome = await link.commit(offset, scored(await reading.next(20)), 0)
                    if not isinstance(outcome, Committed):
                        break
                    offset = outcome.offset
        await asyncio.sleep(0.02)


async def _recovered(link: FencedLink) -> Offset | None:
    """As soon as the broker can be reached again."""
    while True:
        try:
            return await link.recover()
        except Away:
            await asyncio.sleep(0.02)


async def _lost(broker: Broker) -> bool:
    return not broker.connected


async def _has(bare: Bare, stream: str, subject: str, count: int) -> bool:
    return (await bare.subjects(stream)).get(subject, 0) == count


async def _only_the_offset(bare: Bare, work: StreamWork) -> bool:
    return set(await bare.subjects(work.sink.stream)) == {offset_subject(work, 0), opening_subject(work, 0)}
