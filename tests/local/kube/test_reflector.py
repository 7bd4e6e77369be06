"""The faults that every watch meets some day: after each the cache is right, and no change was missed."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kube_testing import (
    Fault,
    HurriedClock,
    Mirror,
    Peer,
    Request,
    ScriptedServer,
    answering,
    half_open,
    resetting,
    running,
    sending,
    silence,
    until,
)
from modelyard.control.kube import answers
from modelyard.control.kube.client import Client
from watch_faults_testing import (
    FAULTS,
    GONE,
    Break,
    check,
    check_bookmark,
    connection_is_reset,
    expires_as_a_status,
    following,
    reflector_of,
    too_many_requests,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_the_cache_ends_right_after(fault: Break) -> None:
    await check(ScriptedServer(), fault)


async def test_what_the_server_asks_for_is_waited() -> None:
    async with following(ScriptedServer()) as it:
        await too_many_requests(it.server)
        await it.catches_up()
        clock = it.reflector._clock
        assert isinstance(clock, HurriedClock)
        assert sum(seconds >= 4 for seconds in clock.slept) == 2


async def test_a_bookmark_spares_the_list_after_a_compaction() -> None:
    async with following(ScriptedServer()) as it:
        it.server.version += 50  # other kinds changed
        await check_bookmark(it)


async def test_a_renewed_token_is_used(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    server = ScriptedServer(token="old")
    await server.put("a", "1")
    async with server:
        config = replace(server.config, token=None, token_file=file)
        async with Client(config, attempts=2, pause=0.01) as client:
            reflector, mirror = reflector_of(client, HurriedClock(0.02))
            async with running(reflector.run()):
                await server.watched()
                server.token = "new"
                await expires_as_a_status(server)
                asked = len(server.requests)
                await until(lambda: len(server.requests) >= asked + 3)
                file.unlink()
                await asyncio.sleep(0.05)
                file.write_text("new")
                await mirror.until(server.values)


async def test_a_half_open_watch_is_given_up() -> None:
    async with following(ScriptedServer(), watch_seconds=0.1, idle_grace=0.3) as it:
        it.server.faults += [half_open, half_open]
        await connection_is_reset(it.server)
        await it.catches_up()


async def test_a_watch_that_is_never_answered_is_given_up() -> None:
    server = ScriptedServer()
    await server.put("a", "1")
    async with server, Client(server.config, attempts=2, pause=0.01, timeout=0.3) as client:
        server.faults += [silence, silence]
        reflector, mirror = reflector_of(client, HurriedClock(0.01))
        async with running(reflector.run()):
            await server.watched()
            server.faults += [silence, silence]
            await connection_is_reset(server)
            await mirror.until(server.values)


async def test_an_object_may_be_large_and_a_line_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    async with following(ScriptedServer()) as it:
        await it.server.put("large", "x" * 2**20)
        await it.catches_up()
        assert it.reflector.restarts == 0
        monkeypatch.setattr(answers, "_MAX_LINE_BYTES", 2**18)
        await it.server.put("larger", "x" * 2**21)
        await it.catches_up()
        assert it.reflector.relists == 2  # the list got past the event that no watch can bring
        await it.server.put("last", "one")
        await it.catches_up()


async def test_lists_come_in_pages_that_may_expire() -> None:
    async with following(ScriptedServer(page=6)) as it:
        listed = [request for request in it.server.requests if not request.watches]
        assert [request.query["limit"] for request in listed] == ["500"] * 4
        assert len({request.query.get("continue") for request in listed}) == 4
        await it.catches_up()

        async def expire(_request: Request, peer: Peer) -> None:
            await it.server.delete("object-00")  # was on the first page
            await it.server.delete("object-19")
            await peer.answer(410, {"reason": "Expired", "message": "the continue parameter is too old"})

        it.server.faults += [None, expire]
        asked = len(it.server.requests)
        await it.server.watching[-1].event("ERROR", GONE)
        await until(lambda: it.reflector.relists == 2)
        await it.catches_up()
        first, second, whole = (request.query for request in it.server.requests[asked : asked + 3])
        assert ("continue" in first, "continue" in second, "continue" in whole) == (False, True, False)
        assert "limit" not in whole


async def test_a_handler_that_fails_is_told_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with following(ScriptedServer()) as it:
        late = Mirror()

        def broken(*_: Any) -> None:
            raise KeyError("defect")

        it.reflector._handlers[:0] = [broken]
        it.reflector.add_handler(late)
        await it.server.put("last", "one")
        await it.catches_up()
        assert late.values == {"last": "one"}
        assert "KeyError" in caplog.text
        assert it.reflector.restarts == 0


def always_for_watches(fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.watches else None


def always(fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda _request: fault


ENDLESS = {
    "503": always(answering(503)),
    "429 that asks for no pause": always(answering(429, Retry_After="0")),
    "401": always(answering(401)),
    "403": always(answering(403, {"reason": "Forbidden"})),
    "redirects": always(answering(302, Location="/elsewhere")),
    "resets": always(resetting),
    "garbage for a list": always(answering(200, b"<html>")),
    "watch: 503": always_for_watches(answering(503)),
    "watch: 429 that asks for no pause": always_for_watches(answering(429, Retry_After="0")),
    "watch: 410": always_for_watches(answering(410, GONE)),
    "watch: 410 in the stream": always_for_watches(sending(b'{"type":"ERROR","object":{"code":410}}')),
    "watch: ERROR 500": always_for_watches(sending(b'{"type":"ERROR","object":{"code":500}}')),
    "watch: ends at once": always_for_watches(sending()),
    "watch: garbage": always_for_watches(sending(b"garbage")),
    "watch: resets": always_for_watches(resetting),
}


@pytest.mark.parametrize("fault", ENDLESS)
async def test_a_server_that_stays_sick_is_asked_ever_more_rarely(fault: str) -> None:
    server = ScriptedServer(always=ENDLESS[fault])
    async with server, Client(server.config, attempts=2, pause=0.001) as client:
        clock = HurriedClock()
        reflector, _ = reflector_of(client, clock)
        async with running(reflector.run()):
            await until(lambda: sum(clock.slept) > 300)
            # 0.5, 1, 2 ... 30 seconds, each with a list (of two attempts) and a watch
            assert len(server.requests) <= 80
            assert 5 <= len(clock.slept) <= 40


STATES = {
    "listing": (always(silence), 1),
    "waiting for a watch": (always_for_watches(silence), 2),
    "watching": (always_for_watches(half_open), 2),
    "pausing": (always(answering(403)), 1),
}


@pytest.mark.parametrize("state", STATES)
async def test_following_ends_at_once_when_cancelled(state: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    faults, requests = STATES[state]
    async with ScriptedServer(always=faults) as server, Client(server.config) as client:
        reflector, _ = reflector_of(client, HurriedClock(30), first_pause=20)
        async with running(reflector.run()):
            await until(lambda: len(server.requests) == requests)
        if state != "pausing":
            await until(lambda: not server.peers)  # the connection of a request that was left is closed, not kept
    assert not caplog.records
