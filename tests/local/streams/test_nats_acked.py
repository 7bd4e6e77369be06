"""At least once against a real broker: nothing is lost, and what comes again is dropped within the window."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats import acked
from modelyard.runtime.streams.nats.acked import AckedLink
from modelyard.runtime.streams.nats.broker import Broker, connect
from modelyard.runtime.streams.nats.setup import prepare_sink, prepare_source
from modelyard.runtime.streams.nats.subjects import durable
from modelyard.runtime.streams.port import Away, Busy, Committed, Fenced, Torn, Unknown
from modelyard.runtime.streams.records import Message, Offset
from modelyard.wire.work import StartWork, StreamWork
from nats_testing import Bare, Nats, Wire, partitioned, scored, stream_work, until


def work_of(uri: str, name: str) -> StreamWork:
    return stream_work(uri, name, delivery="atLeastOnce")


async def prepared(broker: Broker, work: StreamWork) -> AckedLink:
    await prepare_source(broker, work)
    await prepare_sink(broker, work)
    return AckedLink(broker, broker, work, 0)


async def begun(link: AckedLink) -> Offset:
    outcome = await link.begin()
    assert isinstance(outcome, Committed)
    return outcome.offset


async def taken(reading: object, count: int) -> Sequence[Message]:
    found: list[Message] = []
    while len(found) < count:
        found += await reading.next(count - len(found))  # type: ignore[attr-defined]
    return found


async def committed(link: AckedLink, offset: Offset, messages: Sequence[Message], dead: Sequence[int] = ()) -> Offset:
    outcome = await link.commit(offset, scored(messages, dead), 0)
    assert isinstance(outcome, Committed), outcome
    return outcome.offset


async def test_a_commit_stores_everything_before_it_acknowledges_everything(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, work_of(broker.uri, "all"))
    await bare.fill("all.in", [f"{n}" for n in range(10)])
    offset = await begun(link)
    assert offset == Offset(position=0)
    async with link.read(offset) as reading:
        messages = await taken(reading, 4)
        assert [each.delivered for each in messages] == [1] * 4
        offset = await committed(link, offset, messages, dead=[2])
        assert (offset.position, offset.records, offset.dead_letters) == (4, 4, 1)
        assert await link.recover() == Offset(position=4)
        assert await reading.lag() == 6
        await committed(link, offset, await taken(reading, 6))
        assert await reading.lag() == 0
    assert await bare.subjects("all_out") == {"all.out": 9, "all.dead": 1}
    headers = [headers for _, _, headers in await bare.read("all_out", "all.>")]
    assert [each["Nats-Msg-Id"] for each in headers[1:3]] == ["default.all/0/2/dead", "default.all/0/3"]


async def test_what_a_dead_runner_left_comes_again_and_counts(
    broker: Broker, bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acked, "ACK_SECONDS", 1)
    link = await prepared(broker, work_of(broker.uri, "dead"))
    await bare.fill("dead.in", ["a", "b", "c"])
    offset = await begun(link)
    async with link.read(offset) as reading:
        messages = await taken(reading, 3)
        offset = await committed(link, offset, messages[:1])
        await _forget(reading)  # as a process does that was killed
    async with link.read(offset) as reading:
        again = await taken(reading, 2)
    assert [(each.payload, each.delivered) for each in again] == [(b"b", 2), (b"c", 2)]


async def test_what_was_not_committed_comes_again_at_once_and_in_order(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, work_of(broker.uri, "back"))
    await bare.fill("back.in", [f"{n}" for n in range(900)])
    offset = await begun(link)
    async with link.read(offset) as reading:
        messages = await taken(reading, 20)
        offset = await committed(link, offset, messages[:5])
    async with asyncio.timeout(acked.ACK_SECONDS / 2):
        async with link.read(offset) as reading:
            again = await taken(reading, 895)
    assert [each.payload for each in again] == [f"{n}".encode() for n in range(5, 900)]
    assert {each.delivered for each in again[:15]} == {2}


async def test_messages_that_are_worked_on_for_long_do_not_come_again(
    broker: Broker, bare: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acked, "ACK_SECONDS", 1)
    monkeypatch.setattr(acked, "_PROGRESS_SECONDS", 0.2)
    link = await prepared(broker, work_of(broker.uri, "slow"))
    await bare.fill("slow.in", ["a"])
    offset = await begun(link)
    async with link.read(offset) as reading:
        messages = await taken(reading, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):  # longer than ACK_SECONDS
                await reading.next(1)
        await committed(link, offset, messages)
    assert (await bare.api(f"CONSUMER.INFO.slow_in.{durable(work_of('', 'slow'), 0)}"))["num_redelivered"] == 0


async def test_a_second_try_is_dropped_by_its_id(server: Nats, tmp_path: Path, bare: Bare) -> None:
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        link = await prepared(broker, work_of(wire.uri, "twice"))
        await bare.fill("twice.in", ["a", "b"])
        offset = await begun(link)
        with suppress(Away):
            async with link.read(offset) as reading:
                messages = await taken(reading, 2)
                wire.answers = False
                commit = asyncio.create_task(link.commit(offset, scored(messages), 0))
                await until(lambda: _has(bare, "twice_out", "twice.out", 2))
                wire.cut()
                assert isinstance(await commit, Unknown)
        wire.answers = True
        offset = await until(lambda: _recovered(link))
        async with link.read(offset) as reading:
            await committed(link, offset, await taken(reading, 2))
        assert await bare.subjects("twice_out") == {"twice.out": 2}


async def test_a_work_queue_is_emptied(broker: Broker, bare: Bare) -> None:
    await bare.stream("queue_in", ["queue.in.>"], retention="workqueue")
    work = partitioned(work_of(broker.uri, "queue"), 2)
    await prepare_source(broker, work)
    await prepare_sink(broker, work)
    for n in range(6):
        await bare.publish(f"queue.in.{n % 2}.k", f"{n}")
    for partition in range(2):
        link = AckedLink(broker, broker, work, partition)
        offset = await begun(link)
        assert await link.recover() is not None
        async with link.read(offset) as reading:
            messages = await taken(reading, 3)
            assert [int(each.payload) % 2 for each in messages] == [partition] * 3
            await committed(link, offset, messages)
            await reading.lag()
            assert reading.expired() == 0
    assert (await bare.info("queue_in"))["state"]["messages"] == 0
    await prepare_source(broker, work)  # its consumers are no hindrance


async def test_a_partition_begins_once_where_start_says(broker: Broker, bare: Bare) -> None:
    work = work_of(broker.uri, "once")
    link = await prepared(broker, work)
    assert await link.recover() is None
    await bare.fill("once.in", ["x"] * 5)
    latest = AckedLink(broker, broker, msgspec.structs.replace(work, start=StartWork(at="latest")), 0)
    assert await begun(latest) == Offset(position=5)
    assert isinstance(await link.begin(), Fenced)
    assert await link.recover() == Offset(position=5)
    assert await begun(latest) == Offset(position=5)


async def test_other_subjects_take_effect_and_keep_the_place(broker: Broker, bare: Bare) -> None:
    work = work_of(broker.uri, "more")
    await bare.stream("more_in", ["more.>"])
    source = msgspec.structs.replace(work.source, subjects=("more.a",))
    work = msgspec.structs.replace(work, source=source, sink=msgspec.structs.replace(work.sink, subject="out.more"))
    work = msgspec.structs.replace(work, dead_letter="out.more.dead")
    link = await prepared(broker, work)
    await bare.publish("more.a", "1")
    offset = await begun(link)
    async with link.read(offset) as reading:
        offset = await committed(link, offset, await taken(reading, 1))
    await bare.publish("more.b", "2")
    wider = msgspec.structs.replace(work, source=msgspec.structs.replace(source, subjects=("more.a", "more.b")))
    link = AckedLink(broker, broker, wider, 0)
    assert await link.recover() == Offset(position=1)
    async with link.read(offset) as reading:
        assert [each.payload for each in await taken(reading, 1)] == [b"2"]


async def test_a_full_sink_is_busy_and_acknowledges_nothing(broker: Broker, bare: Bare) -> None:
    await bare.stream("tight_out", ["tight.out", "tight.dead"], max_msgs=1, discard="new")
    link = await prepared(broker, work_of(broker.uri, "tight"))
    await bare.fill("tight.in", ["a", "b"])
    offset = await begun(link)
    async with link.read(offset) as reading:
        outcome = await link.commit(offset, scored(await taken(reading, 2)), 0)
        assert isinstance(outcome, Busy)
        assert outcome.reason == Reason.BROKER_FULL
        assert await link.recover() == offset


async def test_a_source_that_is_gone_is_refused(broker: Broker, bare: Bare) -> None:
    link = await prepared(broker, work_of(broker.uri, "gone"))
    await begun(link)
    await bare.api("STREAM.DELETE.gone_in")
    with pytest.raises(Refused) as refused:
        await link.recover()
    assert refused.value.reason == Reason.STREAM_NOT_FOUND


async def test_a_broker_killed_again_and_again_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acked, "ACK_SECONDS", 1)
    total = 1000
    with Nats(tmp_path) as server:
        async with connect(server.uri, {}, "", tmp_path) as broker:
            link = await prepared(broker, work_of(server.uri, "kill"))
            async with server.client() as bare:
                await bare.fill("kill.in", [f"{n}" for n in range(total)])
            async with asyncio.TaskGroup() as group:
                following = group.create_task(_follow(link, total))
                for _ in range(3):
                    await asyncio.sleep(0.2)  # a fault at any moment, not a wait for something
                    await asyncio.to_thread(server.restart)
                await following
            async with server.client() as bare:
                found = {payload for _, payload, _ in await bare.read("kill_out", "kill.out")}
    assert found == {f"scored {n}".encode() for n in range(total)}


async def _follow(link: AckedLink, total: int) -> None:
    while True:
        with suppress(Away, Torn):
            offset = await link.recover()
            if offset is None:
                await link.begin()
                continue
            if offset.position >= total:
                return
            async with link.read(offset) as reading:
                while (await link.recover() or offset).position < total:
                    outcome = await link.commit(offset, scored(await reading.next(20)), 0)
                    if not isinstance(outcome, Committed):
                        break
        await asyncio.sleep(0.02)


async def _forget(reading: acked.AckedReading) -> None:
    reading.unsettled.clear()
    reading._waiting.clear()


async def _has(bare: Bare, stream: str, subject: str, count: int) -> bool:
    return (await bare.subjects(stream)).get(subject, 0) == count


async def _recovered(link: AckedLink) -> Offset | None:
    with suppress(Away):
        return await link.recover()
    return None
