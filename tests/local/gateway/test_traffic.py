"""How requests are shared, copied, tried again and bounded: what a caller meets, with a real Envoy."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway_testing import Load, becomes_true, upstream
from modelyard.control.ir.route import Backend, Endpoints, Mirror, Route, Version
from modelyard.testing.gateway_suite import IRIS, acknowledged, route

from .conftest import EnvoyRig

INFER = "/v2/models/iris/infer"


async def serve(rig: EnvoyRig, wanted: Route, *more: Endpoints) -> None:
    """In force, with an upstream for each unit that has no endpoints of its own."""
    given = {each.unit for each in more}
    others = [await rig.endpoints(unit) for unit in wanted.units if unit not in given]
    await rig.gateway.publish((wanted,), (*more, *others))
    await acknowledged(rig.gateway, wanted)


def shared(first: int, **changes: Any) -> Route:
    """`first` in a hundred to a, the others to b."""
    backends = (Backend(unit="a", weight=first), Backend(unit="b", weight=100 - first))
    return msgspec.structs.replace(route(IRIS, "a"), backends=backends, **changes)


def only(unit: str, **changes: Any) -> Route:
    return msgspec.structs.replace(route(IRIS, unit), **changes)


async def answering(rig: EnvoyRig, count: int, **options: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(count):
        status, body, _ = await rig.request("POST", INFER, data=b"{}", **options)
        assert status == 200
        found[body["unit"]] += 1
    return found


async def test_requests_are_shared_by_percent(rig: EnvoyRig) -> None:
    await serve(rig, shared(90))
    found = await answering(rig, 1000)
    assert 850 <= found["a"] <= 940, "five standard deviations"


async def test_who_is_sticky_stays_with_a_revision_and_a_replica(rig: EnvoyRig) -> None:
    async with upstream(rig.folder / "a2.sock", "a2") as second:
        both = Endpoints(unit="a", addresses=tuple(sorted((f"unix:{rig.folder}/a.sock", second.address))))
        await rig.endpoints("a")
        await serve(rig, shared(50, sticky_header="x-user"), both)
        homes = {}
        for user in range(60):
            found = await answering(rig, 5, headers={"X-User": f"user-{user}"})
            assert len(found) == 1, "one caller, one replica"
            homes[user] = next(iter(found))
        assert {"a", "a2", "b"} == set(homes.values())
        assert 12 <= sum(home == "b" for home in homes.values()) <= 48
        assert len(await answering(rig, 60)) > 1, "who sends no such header is shared like everybody"


async def test_a_tag_and_the_number_of_a_revision_are_addresses_of_their_own(rig: EnvoyRig) -> None:
    versions = (Version(name="1", unit="a", number="1"), Version(name="2", unit="b", number="2"))
    await serve(rig, only("a", versions=(*versions, Version(name="canary", unit="b", number="2"))))
    for name, unit in (("1", "a"), ("2", "b"), ("canary", "b")):
        for public_id in ("iris", "iris.default"):
            path = f"/v2/models/{public_id}/versions/{name}/echo?q=1"
            status, body, _ = await rig.request("POST", path, data=b"{}")
            number = name.replace("canary", "2")
            assert (status, body["unit"]) == (200, unit)
            assert body["head"].startswith(f"post /v2/models/{public_id}/versions/{number}/echo?q=1 ")
    status, body, _ = await rig.request("POST", "/v2/models/iris/versions/canaryx/echo", data=b"{}")
    assert (status, body["unit"]) == (200, "a"), "an unknown one is left to the model's own replicas, which refuse it"


async def test_copies_reach_the_mirror_and_its_answers_reach_nobody(rig: EnvoyRig) -> None:
    await serve(rig, only("a", mirror=Mirror(unit="b", percent=100, compared_percent=30)))
    assert await answering(rig, 50, headers={"x-modelyard-shadow": "100"}) == {"a": 50}
    await becomes_true(lambda: rig.upstreams["b"].requests == 50)
    for head in rig.upstreams["b"].heads:
        assert "\r\nx-modelyard-shadow: 30\r\n" in head
        assert "\r\nhost: 127.0.0.1:" in head
        assert "-shadow\r\n" not in head
    assert not any("x-modelyard-shadow" in head for head in rig.upstreams["a"].heads)
    large = bytes(3 * 2**20)
    status, body, _ = await rig.request("POST", "/v2/models/iris/echo", data=io.BytesIO(large))
    assert (status, body["unit"], body["bytes"]) == (200, "a", len(large))
    await becomes_true(lambda: rig.upstreams["b"].requests == 51)
    await serve(rig, only("a", mirror=Mirror(unit="b", percent=20)))
    before = rig.upstreams["b"].requests
    await answering(rig, 400)
    await asyncio.sleep(0)
    assert 30 <= rig.upstreams["b"].requests - before <= 130


async def test_a_mirror_that_hangs_or_fails_costs_callers_nothing(rig: EnvoyRig) -> None:
    gone = Endpoints(unit="b", addresses=(f"unix:{rig.folder}/gone.sock",))
    await serve(rig, only("a", mirror=Mirror(unit="b")), gone)
    assert await answering(rig, 20) == {"a": 20}
    await rig.endpoints("b")
    rig.upstreams["b"].hold()
    await serve(rig, only("a", mirror=Mirror(unit="b")))
    began = time.monotonic()
    assert await answering(rig, 20) == {"a": 20}
    assert time.monotonic() - began < 5
    rig.upstreams["b"].release()


async def test_more_requests_than_may_be_under_way_are_refused_with_a_hint_when_to_try_again(rig: EnvoyRig) -> None:
    await serve(rig, only("a", max_concurrency=3))
    rig.upstreams["a"].hold()
    calls = [asyncio.create_task(rig.request("POST", INFER, data=b"{}")) for _ in range(10)]
    await becomes_true(lambda: sum(each.done() for each in calls) == 7)
    rig.upstreams["a"].release()
    answers = await asyncio.gather(*calls)
    assert Counter(status for status, _, _ in answers) == {200: 3, 503: 7}
    refused = next(each for each in answers if each[0] == 503)
    assert "too many requests" in refused[1]["error"]
    assert refused[2]["retry-after"] == "1"
    assert (await answering(rig, 5)) == {"a": 5}


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent_on(rig: EnvoyRig) -> None:
    await serve(rig, only("a", max_request_bytes=100_000))
    status, body, _ = await rig.request("POST", INFER, data=bytes(100_000))
    assert (status, body["bytes"]) == (200, 100_000)
    status, body, _ = await rig.request("POST", INFER, data=bytes(100_001))
    assert (status, list(body)) == (413, ["error"])
    assert "too large" in body["error"]
    assert rig.upstreams["a"].requests == 1

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(10_000)

    assert (await rig.request("POST", INFER, data=chunks()))[0] == 413
    other = msgspec.structs.replace(route(IRIS, "a"), max_request_bytes=0)
    await serve(rig, other)
    assert (await rig.request("POST", INFER, data=io.BytesIO(bytes(3_000_000))))[1]["bytes"] == 3_000_000


async def test_a_bounded_body_is_passed_on_while_it_arrives(rig: EnvoyRig) -> None:
    await serve(rig, only("a", max_request_bytes=100 * 2**20))
    sent = 40 * 2**20

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(sent // 2**16):
            yield bytes(2**16)

    assert (await rig.request("POST", INFER, data=chunks()))[1]["bytes"] == sent


async def test_answers_are_compressed_where_that_is_asked_for_on_both_sides(rig: EnvoyRig) -> None:
    async def length(encoding: str) -> tuple[str, int]:
        headers = {"Accept-Encoding": encoding}
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            url = f"{rig.gateway.url}/v2/models/iris/large"
            async with session.post(url, data=b"{}", headers=headers) as answer:
                return answer.headers.get("Content-Encoding", ""), len(await answer.read())

    await serve(rig, only("a"))
    assert (await length("gzip"))[0] == ""
    await serve(rig, only("a", compressed=True))
    plain = await length("identity")
    assert plain[0] == ""
    for encoding in ("gzip", "zstd"):
        name, size = await length(encoding)
        assert name == encoding
        assert size * 20 < plain[1]
    _, body, headers = await rig.request("POST", INFER, data=b"{}", headers={"Accept-Encoding": "gzip"})
    assert body["unit"] == "a"
    assert "content-encoding" not in headers, "small answers are left as they are"


async def test_events_arrive_when_they_are_sent(rig: EnvoyRig) -> None:
    await serve(rig, only("a", compressed=True, max_request_bytes=1000))
    one = rig.upstreams["a"]
    began = time.monotonic()
    async with rig.caller.post(f"{rig.gateway.url}/v2/models/iris/events", data=b"{}") as answer:
        seen = [one.events_sent async for line in answer.content if line.startswith(b"data: ")]
    assert seen == list(range(1, 9)), "each arrives before the next is sent"
    assert time.monotonic() - began > 3


async def test_a_lost_replica_is_tried_again_as_often_as_asked(rig: EnvoyRig) -> None:
    await rig.endpoints("a")
    addresses = tuple(sorted((f"unix:{rig.folder}/gone.sock", rig.upstreams["a"].address)))
    half = Endpoints(unit="a", addresses=addresses)
    await serve(rig, only("a", retries=1), half)
    assert await answering(rig, 40) == {"a": 40}
    both = Endpoints(unit="a", addresses=(f"unix:{rig.folder}/gone.sock", f"unix:{rig.folder}/gone2.sock"))
    await rig.gateway.publish((only("a", retries=0),), (both,))
    await acknowledged(rig.gateway, only("a", retries=0))
    status, body, _ = await rig.request("POST", INFER, data=b"{}")
    assert status == 503
    assert "try again" in body["error"]


async def test_sticky_callers_of_a_lost_replica_are_tried_at_another(rig: EnvoyRig) -> None:
    await rig.endpoints("a")
    half = Endpoints(unit="a", addresses=tuple(sorted((f"unix:{rig.folder}/gone.sock", rig.upstreams["a"].address))))
    await serve(rig, only("a", sticky_header="x-user"), half)
    for user in range(40):
        assert await answering(rig, 1, headers={"X-User": str(user)}) == {"a": 1}


@pytest.mark.parametrize(("limit", "deadline"), [(60.0, "300m"), (0.3, ""), (0.3, "60S")])
async def test_a_call_ends_at_its_deadline_or_at_the_models_limit(rig: EnvoyRig, limit: float, deadline: str) -> None:
    await serve(rig, only("a", timeout_seconds=limit))
    rig.upstreams["a"].hold()
    message = b"\x0a\x04iris"
    headers = {"Content-Type": "application/grpc", "TE": "trailers"} | ({"grpc-timeout": deadline} if deadline else {})
    began = time.monotonic()
    url = f"{rig.gateway.url}/inference.GRPCInferenceService/ModelInfer"
    async with rig.caller.post(url, data=b"\0" + len(message).to_bytes(4, "big") + message, headers=headers) as answer:
        assert (answer.status, answer.headers["grpc-status"]) == (200, "4")
        assert "spec.timeout" in answer.headers["grpc-message"]
    assert 0.2 < time.monotonic() - began < 10
    rig.upstreams["a"].release()


async def test_a_replica_that_cannot_be_reached_loses_few_large_requests(rig: EnvoyRig) -> None:
    await rig.endpoints("a")
    half = Endpoints(unit="a", addresses=tuple(sorted((f"unix:{rig.folder}/gone.sock", rig.upstreams["a"].address))))
    await serve(rig, only("a"), half)
    async with Load(f"{rig.gateway.url}{INFER}", callers=4, body=bytes(2 * 2**20)) as load:
        await becomes_true(lambda: load.answered["a"] + len(load.failures) >= 200, 60)
    lost = len(load.failures) / (load.answered["a"] + len(load.failures))
    print(f"2 MiB bodies, one of two replicas gone: {lost:.1%} lost")
    assert lost < 0.3


async def test_a_hundred_changes_of_weights_under_load_lose_no_request(rig: EnvoyRig) -> None:
    await serve(rig, shared(50))
    both = (await rig.endpoints("a"), await rig.endpoints("b"))
    async with Load(f"{rig.gateway.url}{INFER}") as load:
        for number in range(100):
            # Stickiness and bounds change the clusters, too.
            wanted = shared(1 + number % 99, sticky_header="x-user" if number % 4 == 1 else "")
            wanted = msgspec.structs.replace(wanted, max_concurrency=1000 if number % 8 == 2 else 0)
            await rig.gateway.publish((wanted,), both)
            await acknowledged(rig.gateway, wanted)
    assert load.failures == []
    assert min(load.answered["a"], load.answered["b"]) > 20
    assert load.answered.total() > 200
