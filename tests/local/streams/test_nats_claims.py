"""Runners agree who works on what: claims are exclusive, end by themselves, and survive nothing they need not."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats import claims as claims_of
from modelyard.runtime.streams.nats.acked import AckedLink
from modelyard.runtime.streams.nats.broker import Broker, connect
from modelyard.runtime.streams.nats.claims import Claims
from modelyard.runtime.streams.nats.clean import clean_claims, clean_sink, clean_source
from modelyard.runtime.streams.nats.fenced import FencedLink
from modelyard.runtime.streams.nats.setup import prepare_sink, prepare_source
from modelyard.runtime.streams.nats.subjects import CLAIMS_STREAM
from modelyard.runtime.streams.port import Away, Committed
from nats_testing import Bare, Nats, Wire, stream_work, until


def of(broker: Broker, name: str, runner: str, revision: str = "1") -> Claims:
    return Claims(broker, stream_work("nats://any", name, revision=revision), runner)


async def test_one_of_many_runners_gets_a_partition(broker: Broker) -> None:
    runners = [of(broker, "many", f"runner-{n}") for n in range(8)]
    won = await asyncio.gather(*(each.claim(0) for each in runners))
    assert sum(won) == 1
    winner = runners[won.index(True)]
    assert await winner.renew(0)
    assert not any([await each.claim(0) for each in runners if each is not winner])
    assert not any([await each.renew(0) for each in runners if each is not winner])
    assert await winner.claimed() == frozenset({0})
    assert await of(broker, "another", "runner-0").claimed() == frozenset()


async def test_a_released_partition_is_free_at_once(broker: Broker) -> None:
    mine, other = of(broker, "free", "mine"), of(broker, "free", "other")
    assert await mine.claim(3)
    await mine.release(3)
    assert await other.claimed() == frozenset()
    assert await other.claim(3)
    await mine.release(3)  # not ours any more
    assert not await mine.renew(3)
    assert await other.renew(3)


async def test_a_runner_that_is_started_again_takes_over_at_once_what_it_held(broker: Broker) -> None:
    before, other = of(broker, "again", "mine"), of(broker, "again", "other")
    assert await before.claim(0)
    assert await before.claim(2)
    assert await other.claim(1)
    after = of(broker, "again", "mine")
    assert await after.claimed() == frozenset({1})  # by others
    assert await after.claim(0)
    assert await after.claimed() == frozenset({0, 1, 2})  # what it did not want ends by itself
    assert await other.claimed() == frozenset({0, 1, 2})
    assert not await other.claim(0)


async def test_a_claim_ends_unless_it_is_renewed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_of, "SECONDS", 1)
    mine, other = of(broker, "ends", "mine"), of(broker, "ends", "other")
    assert await mine.claim(0)
    assert await mine.claim(1)
    for _ in range(4):
        await asyncio.sleep(0.5)  # within the TTL
        assert await mine.renew(0)
    assert await other.claimed() == frozenset({0})
    assert await other.claim(1)
    assert not await mine.renew(1)
    assert not await other.claim(0)


async def test_runners_of_one_revision_count_each_other(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_of, "SECONDS", 1)
    one, two, new = of(broker, "live", "a"), of(broker, "live", "b"), of(broker, "live", "c", revision="2")
    assert await one.live() == 1  # itself
    for each in (one, two, new):
        await each.show()
    assert [await each.live() for each in (one, two, new)] == [2, 2, 1]
    await two.hide()
    assert await one.live() == 1
    await two.show()
    await until(lambda: _alone(one))


async def test_attempts_at_one_position_are_counted_until_there_is_progress(broker: Broker) -> None:
    one, two = of(broker, "tries", "a"), of(broker, "tries", "b")
    assert [await one.attempts(0, 7), await two.attempts(0, 7), await one.attempts(0, 7)] == [1, 2, 3]
    assert await one.attempts(1, 7) == 1
    assert await one.attempts(0, 8) == 1
    assert await two.attempts(0, 8) == 2
    await one.progressed(0)
    assert await two.attempts(0, 8) == 1
    await one.progressed(5)


async def test_a_claim_whose_reply_was_lost_is_ours(server: Nats, broker: Broker, tmp_path: Path, bare: Bare) -> None:
    async with Wire(server.port) as wire, connect(wire.uri, {}, "", tmp_path) as cut:
        mine, other = of(cut, "reply", "mine"), of(broker, "reply", "other")
        assert await mine.claim(0)
        before = (await bare.info(CLAIMS_STREAM))["state"]["last_seq"]
        wire.answers = False
        renewing = asyncio.create_task(mine.renew(0))
        await until(lambda: _moved(bare, before))
        wire.cut()
        with pytest.raises(Away):
            await renewing
        wire.answers = True
        assert await until(lambda: _renewed(mine))
        assert not await other.claim(0)
        assert await mine.claim(0)


async def test_after_a_restart_of_the_broker_claims_are_free_and_their_stream_is_made_again(tmp_path: Path) -> None:
    with Nats(tmp_path) as server:
        async with connect(server.uri, {}, "", tmp_path) as broker:
            mine, other = of(broker, "restart", "mine"), of(broker, "restart", "other")
            assert await mine.claim(0)
            await mine.show()
            await asyncio.to_thread(server.restart)
            assert await until(lambda: _answers(other)) == {"claimed": frozenset()}
            assert not await mine.renew(0)
            assert await other.claim(0)
            await mine.show()
            await mine.progressed(0)
            await mine.hide()


async def test_a_stream_of_claims_that_cannot_hold_any_is_refused(tmp_path: Path) -> None:
    with Nats(tmp_path) as server:
        async with server.client() as bare, connect(server.uri, {}, "", tmp_path) as broker:
            await bare.stream(CLAIMS_STREAM, ["modelyard.claims.>"])
            with pytest.raises(Refused, match="allow_msg_ttl: true") as refused:
                await of(broker, "bad", "mine").claim(0)
            assert refused.value.reason == Reason.STREAM_UNSUITABLE


async def test_cleaning_up_leaves_what_was_scored_and_nothing_else(broker: Broker, bare: Bare) -> None:
    work = stream_work(broker.uri, "clean")
    other = msgspec.structs.replace(work, name="default.other")
    for one in (work, other):
        await prepare_source(broker, one)
        await prepare_sink(broker, one)
        assert isinstance(await FencedLink(broker, broker, one, 0).begin(), Committed)
        assert isinstance(await AckedLink(broker, broker, one, 0).begin(), Committed)
        claims = Claims(broker, one, "runner")
        assert await claims.claim(0)
        await claims.show()
        await claims.attempts(0, 1)
    await bare.publish("clean.out", "scored")
    for _ in range(2):  # again does no harm
        await clean_source(broker, work)
        await clean_sink(broker, work)
        await clean_claims(broker, work)
    assert set(await bare.subjects("clean_out")) == {"clean.out", "clean.out.__offset.default.other.0"}
    assert (await bare.api("CONSUMER.NAMES.clean_in"))["consumers"] == ["modelyard_default_other_0"]
    left = await bare.subjects(CLAIMS_STREAM, "modelyard.claims.>")
    assert not any("default_clean_" in each for each in left)
    assert sum("default_other_" in each for each in left) == 3


async def test_cleaning_up_where_nothing_is_left_is_fine(broker: Broker) -> None:
    work = stream_work(broker.uri, "nothing")
    await clean_source(broker, work)
    await clean_sink(broker, work)
    await clean_claims(broker, work)


async def _alone(claims: Claims) -> bool:
    return await claims.live() == 1


async def _moved(bare: Bare, before: int) -> bool:
    return bool((await bare.info(CLAIMS_STREAM))["state"]["last_seq"] > before)


async def _renewed(claims: Claims) -> bool:
    try:
        return await claims.renew(0)
    except Away:
        return False


async def _answers(claims: Claims) -> dict[str, frozenset[int]]:
    try:
        return {"claimed": await claims.claimed()}
    except Away:
        return {}
