"""Reading a partition: in order, without gaps, with bounded memory, and knowing what was lost."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.runtime.streams.nats.broker import Broker, connect
from modelyard.runtime.streams.nats.expiry import Expiry
from modelyard.runtime.streams.nats.reader import MOST_MESSAGES, PullReading, delivery
from modelyard.runtime.streams.nats.setup import prepare_source
from modelyard.runtime.streams.nats.source import Source
from modelyard.runtime.streams.port import Away, Torn
from nats_testing import Bare, Nats, Wire, partitioned, stream_work, until


async def positions(reading: PullReading, count: int, most: int = 100) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        messages = await reading.next(min(most, count - len(found)))
        assert 1 <= len(messages) <= most
        found += [each.position for each in messages]
    return found


async def test_read_ahead_is_bounded_whatever_the_lag(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "lag")
    total = 50_000
    await bare.stream("lag_in", ["lag.in"], storage="memory")
    await bare.fill("lag.in", ["x"] * total)
    async with Source(broker, work, 0).read(0) as reading:
        assert await reading.lag() == total
        assert await positions(reading, 1) == [1]
        most = 0
        for n in range(0, 5000, 100):
            assert await positions(reading, 100) == list(range(n + 2, n + 102))
            most = max(most, reading.waiting)
        assert most <= 2 * MOST_MESSAGES
        assert await reading.lag() == total - 5001


async def test_read_ahead_is_bounded_in_bytes(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "bytes")
    await prepare_source(broker, work)
    size = 200_000
    await bare.fill("bytes.in", [b"x" * size] * 60)
    async with Source(broker, work, 0).read(0) as reading:
        most = 0
        for n in range(60):
            assert await positions(reading, 1) == [n + 1]
            most = max(most, reading.waiting * size)
        assert most <= 2 * reading.most_bytes
        assert await reading.lag() == 0


async def test_the_largest_message_passes(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "largest")
    await prepare_source(broker, work)
    size = (await broker.session()).most_bytes
    await bare.fill("largest.in", [b"x" * size] * 5)
    async with Source(broker, work, 0).read(0) as reading:
        assert await positions(reading, 5) == [1, 2, 3, 4, 5]


async def test_records_that_come_later_are_read_as_they_come(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "later")
    await prepare_source(broker, work)
    async with Source(broker, work, 0).read(0) as reading:
        for n in range(3):
            waiting = asyncio.create_task(positions(reading, 1))
            await asyncio.sleep(0)
            await bare.publish("later.in", "x")
            assert await waiting == [n + 1]


async def test_cancelling_loses_nothing(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "cancel")
    await prepare_source(broker, work)
    found: list[int] = []
    async with Source(broker, work, 0).read(0) as reading:
        publishing = asyncio.create_task(bare.fill("cancel.in", ["x"] * 2000, window=50))
        while len(found) < 2000:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.0005):
                    messages = await reading.next(7)
                    found += [each.position for each in messages]
        await publishing
    assert found == list(range(1, 2001))


async def test_a_partition_has_its_own_messages_in_order(broker: Broker, bare: Bare) -> None:
    work = partitioned(stream_work(broker.uri, "parts"), 3)
    await prepare_source(broker, work)
    for n in range(60):
        await bare.publish(f"parts.in.key{n % 7}", f"{n}")
    counts = []
    keys: dict[str, int] = {}
    for partition in range(3):
        async with Source(broker, work, partition).read(0) as reading:
            count = await reading.lag()
            assert count is not None
            counts.append(count)
            for _ in range(count):
                (message,) = await reading.next(1)
                assert message.subject.startswith(f"parts.in.{partition}.")
                key = message.subject.rpartition(".")[2]
                assert keys.get(key, -1) < int(message.payload)
                keys[key] = int(message.payload)
            assert await reading.lag() == 0
    assert sum(counts) == 60
    assert len(keys) == 7


async def test_a_consumer_that_is_removed_tears_the_reading(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "torn")
    await prepare_source(broker, work)
    async with Source(broker, work, 0).read(0) as reading:
        waiting = asyncio.create_task(reading.next(1))
        await asyncio.sleep(0)
        await bare.api(f"CONSUMER.DELETE.torn_in.{reading.consumer}")
        with pytest.raises(Torn, match="made again"):
            await waiting
        assert await reading.lag() is None
    async with Source(broker, work, 0).read(0) as reading:
        await bare.api("STREAM.DELETE.torn_in")
        with pytest.raises(Torn):  # by silence, since nothing answers
            await reading.next(1)


async def test_a_lost_connection_ends_a_wait_at_once(server: Nats, tmp_path: Path) -> None:
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as broker:
        work = stream_work(wire.uri, "away")
        await prepare_source(broker, work)
        async with Source(broker, work, 0).read(0) as reading:
            waiting = asyncio.create_task(reading.next(1))
            await asyncio.sleep(0)
            wire.cut()
            with pytest.raises(Away, match="lost"):
                await waiting
        await until(lambda: _reads(broker))


async def test_messages_that_expired_unread_are_counted(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "expired")
    await bare.stream("expired_in", ["expired.in"], max_msgs=1000)
    await prepare_source(broker, work)
    source = Source(broker, work, 0)
    await bare.fill("expired.in", ["x"] * 1010)
    async with source.read(3) as reading:  # committed up to 3; 4 to 10 have gone meanwhile
        assert await positions(reading, 10) == list(range(11, 21))
        assert reading.expired() == 7
        assert reading.expired() == 0
        await bare.fill("expired.in", ["x"] * 3000)  # 1011 to 4010, of which 3011 and later are left
        read = 20 - 3 - 7
        last = 20
        while last < 4010:
            found = await reading.next(100)
            read, last = read + len(found), found[-1].position
        await reading.lag()
        assert reading.expired() == 4010 - 3 - 7 - read
        assert read < 2500


async def test_what_expires_after_it_was_read_is_not_counted(broker: Broker, bare: Bare) -> None:
    work = partitioned(stream_work(broker.uri, "kept"), 2)
    await bare.stream("kept_in", ["kept.in.>"], max_msgs=20)
    await prepare_source(broker, work)
    async with Source(broker, work, 0).read(0) as reading, Source(broker, work, 1).read(0) as quiet:
        for n in range(100):
            await bare.publish("kept.in.0.k", "x")
            await positions(reading, 1)
            if n % 5 == 0:
                await reading.lag()
                await quiet.lag()  # nothing of it ever was there
        assert (reading.expired(), quiet.expired()) == (0, 0)


def test_the_acknowledgement_subject_is_read_in_all_its_forms() -> None:
    short = "$JS.ACK.orders.mine.2.10.5.1700000000000000000.7"
    long = "$JS.ACK.hub.ACCHASH.orders.mine.2.10.5.1700000000000000000.7"
    for each in (short, long, f"{long}.random"):
        assert delivery(each) == (2, 10, 5, 1700000000000000000)
    assert delivery("_INBOX.x.1") is None
    assert delivery("$JS.ACK.orders") is None


@given(st.data())
def test_expired_is_exact_for_a_source_with_one_partition(data: st.DataObject) -> None:
    """The stream drops its oldest, the consumer goes over the gap: whatever happens between two looks."""
    first, last, read, lost = 1, 0, 0, 0
    expiry = Expiry(0)
    counted = 0
    for _ in range(data.draw(st.integers(1, 12))):
        for _ in range(data.draw(st.integers(0, 6))):
            match data.draw(st.sampled_from(["arrive", "drop", "read"])):
                case "arrive":
                    last += 1
                case "drop" if first <= last:
                    lost += first > read
                    first += 1
                case "read" if max(read + 1, first) <= last:
                    read = max(read + 1, first)
                    expiry.arrived(read)
                case _:
                    pass
        counted += expiry.looked(first, last - max(read, first - 1), whole=True)
        assert counted == lost


async def _reads(broker: Broker) -> bool:
    with suppress(Away):
        await broker.session()
        return True
    return False
