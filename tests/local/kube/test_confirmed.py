"""Who is about to act on what it has followed for long makes sure of it first."""

import asyncio

from kube_testing import ScriptedServer, half_open, running, until
from modelyard.base.clock import SystemClock
from modelyard.control.kube.client import Client
from watch_faults_testing import following, reflector_of


async def test_what_a_dead_watch_has_missed_is_known_and_what_is_known_is_not_told_again() -> None:
    server = ScriptedServer()
    async with following(server) as it:
        server.faults.append(half_open)
        watches = len(server.requests)
        server.watching[-1].reset()
        await until(lambda: len(server.requests) > watches)
        await server.put("object-03", "second")
        await server.delete("object-04")
        changes = len(it.mirror.changes)
        await asyncio.wait_for(it.reflector.confirm(), 10)
        assert {name: body["data"]["value"] for (_, name), body in it.reflector.cache.items()} == server.values()
        assert len(it.mirror.changes) == changes + 2
        await server.watched()
        await server.put("object-05", "third")
        await it.catches_up()


async def test_several_who_ask_at_once_get_one_answer() -> None:
    server = ScriptedServer()
    async with following(server) as it:
        lists = it.reflector.relists
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(it.reflector.confirm())
        assert it.reflector.relists == lists + 1


async def test_who_asks_before_it_runs_gets_its_first_list() -> None:
    server = ScriptedServer()
    await server.put("a", "1")
    async with server, Client(server.config, attempts=1, pause=0.01, timeout=2) as client:
        reflector, _ = reflector_of(client, SystemClock())
        asked = asyncio.ensure_future(reflector.confirm())
        await asyncio.sleep(0)
        async with running(reflector.run()):
            await asyncio.wait_for(asked, 10)
            assert ("default", "a") in reflector.cache
            assert reflector.relists == 1


async def test_who_rests_after_a_failure_is_woken() -> None:
    server = ScriptedServer()
    await server.put("a", "1")
    async with server:
        pass  # now it has a port, at which nobody listens
    async with Client(server.config, attempts=1, pause=0.01, timeout=2) as client:
        reflector, _ = reflector_of(client, SystemClock(), first_pause=1000.0)
        async with running(reflector.run()):
            await until(lambda: reflector.restarts == 1)
            async with server:
                await asyncio.wait_for(reflector.confirm(), 10)
                assert ("default", "a") in reflector.cache
