"""The server as a whole: start, stop, a full or slow disk, noise on the socket, the client of this project."""

import asyncio
import contextlib
import io
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from apihttp_testing import CONFIGS, TOKEN, Web, service, serving
from modelyard.api.schema import crds
from modelyard.base.clock import ManualClock, SystemClock
from modelyard.base.errors import UserError
from modelyard.control.apiserver import database, watching
from modelyard.control.apiserver.database import Change, Event, Raced
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import Client
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import CONFIGMAPS, MODELSERVICES


async def test_watches_end_at_once_when_the_server_stops() -> None:
    clock = SystemClock()
    async with Store.memory(clock) as store, aiohttp.ClientSession() as session:
        server = ApiServer(store, crds(), token=TOKEN, tls=None, clock=clock)
        async with server.listening("127.0.0.1", 0) as url:
            answer = await session.get(f"{url}{CONFIGS}?watch=1", headers={"Authorization": f"Bearer {TOKEN}"})
        async with asyncio.timeout(2):
            assert await answer.content.read() == b""
        answer.close()


async def test_a_port_in_use_is_named() -> None:
    async with serving() as web, Store.memory(ManualClock()) as store:
        server = ApiServer(store, crds(), token=TOKEN, tls=None, clock=ManualClock())
        port = int(web.url.rpartition(":")[2])
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is used by another program"):
            async with server.listening("127.0.0.1", port):
                pass


async def test_a_failure_of_the_caller_arrives_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with serving():
            raise KeyError


async def test_the_reflector_of_this_project_follows_the_server() -> None:
    async with serving() as web, Client(ClientConfig(server=web.url, token=TOKEN)) as client:
        await web.config("before")
        reflector = Reflector(client, CONFIGMAPS, clock=SystemClock())
        changed = asyncio.Event()
        reflector.add_handler(lambda *_: changed.set())
        running = asyncio.create_task(reflector.run())
        async with asyncio.timeout(10):
            await reflector.synced.wait()
            await web.config("after")
            await web.ask("DELETE", f"{CONFIGS}/before")
            while set(reflector.cache) != {("default", "after")}:
                changed.clear()
                await changed.wait()
            body = service("iris")
            body["metadata"]["namespace"] = "default"
            made = await client.create(MODELSERVICES, body)
            done = await client.replace_status(MODELSERVICES, {**made, "status": {"replicas": 1}})
            assert done["status"] == {"replicas": 1}
        assert reflector.relists == 1
        running.cancel()
        await asyncio.wait([running])


async def test_a_full_disk_is_said_so_and_nothing_is_lost(tmp_path: Path) -> None:
    clock = SystemClock()
    store = Store(*database.open_file(tmp_path / "store.db", clock.now))
    async with store, aiohttp.ClientSession() as session:
        server = ApiServer(store, crds(), token=TOKEN, tls=None, clock=clock)
        async with server.listening("127.0.0.1", 0) as url:
            web = Web(url, session, store)
            await web.config("before")
            store._writer._connection.execute("PRAGMA max_page_count=60")
            body = {"metadata": {"name": "large"}, "data": {"x": "y" * 400_000}}
            code, found = await web.ask("POST", CONFIGS, json=body)
            assert (code, "free some space" in found["message"]) == (507, True)
            _, left = await web.ask("GET", CONFIGS)
            assert [each["metadata"]["name"] for each in left["items"]] == ["before"]
            store._writer._connection.execute("PRAGMA max_page_count=100000")
            assert (await web.ask("POST", CONFIGS, json=body))[0] == 201


async def test_reads_go_on_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    store = Store(*database.open_file(tmp_path / "store.db", clock.now))
    async with store, aiohttp.ClientSession() as session:
        server = ApiServer(store, crds(), token=TOKEN, tls=None, clock=clock)
        async with server.listening("127.0.0.1", 0) as url:
            web = Web(url, session, store)
            await web.config("before")
            released, apply = threading.Event(), store._writer.apply

            def slowly(changes: Sequence[Change]) -> list[Event | Raced]:
                released.wait(10)
                return apply(changes)

            monkeypatch.setattr(store._writer, "apply", slowly)
            writing = asyncio.create_task(web.config("after"))
            try:
                async with asyncio.timeout(5):
                    for _ in range(5):
                        assert (await web.ask("GET", f"{CONFIGS}/before"))[0] == 200
                assert not writing.done()
            finally:
                released.set()
            await writing


async def test_what_is_no_http_is_refused_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as web:
        port = int(web.url.rpartition(":")[2])
        for text in (
            b"NONSENSE",
            b"GET / HTTP/1.1\r\nAuthorization: Bearer s3cret\x00",
            b"GET / HTTP/1.1\r\ns3cret:" * 9000,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text + b"\r\n\r\n")
            async with asyncio.timeout(5):
                answer = await reader.read(100)
            assert b" 400 " in answer
            writer.close()
            await writer.wait_closed()
    assert "not valid HTTP" in caplog.text
    assert "s3cret" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_client_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_STALLED_SECONDS", 0.2)
    async with serving() as web:
        port = int(web.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        request = f"GET {CONFIGS}?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        writer.write(request.encode())
        assert b"200" in await reader.readline()
        watches = [each for each in web.store._watches if each._resource is not None]
        assert len(watches) == 1
        for number in range(30):
            body = {"metadata": {"name": f"c{number}"}, "data": {"x": "y" * 1_000_000}}
            assert (await web.ask("POST", CONFIGS, data=io.BytesIO(json.dumps(body).encode())))[0] == 201
        async with asyncio.timeout(10):
            while watches[0] in web.store._watches:  # noqa: ASYNC110  nothing tells when the server gives up
                await asyncio.sleep(0.02)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
