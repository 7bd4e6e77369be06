"""Processes that compete for a Lease of a real (embedded) API server; they are killed and stopped."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import lease_process
from modelyard.api.schema import crds
from modelyard.base.clock import SystemClock
from modelyard.base.errors import RetryLater
from modelyard.control.apiserver import folder as apifolder
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.lease import Election, LeaseLostError
from modelyard.control.kube.resources import CONFIGMAPS, LEASES

Object = dict[str, Any]
TIMING = lease_process.TIMING


@dataclass
class Competitor:
    """A process, and the words that it said."""

    identity: str
    process: asyncio.subprocess.Process
    said: list[str] = field(default_factory=list)

    async def says(self, word: str) -> float:
        """Wait for it; -> when."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self.process.stdout.readline():
                self.said.append(line.decode().strip())
                if self.said[-1] == word:
                    return time.monotonic()
        raise AssertionError(f"{self.identity} ended and said {self.said}")

    def signal(self, which: signal.Signals) -> float:
        self.process.send_signal(which)
        return time.monotonic()


class Cluster:
    """An API server, and who competes for its Lease."""

    def __init__(self, kubeconfig: Path, client: Client, stack: AsyncExitStack) -> None:
        self.kubeconfig = kubeconfig
        self.client = client
        self.writers: list[str] = []
        self._stack = stack

    async def compete(self, identity: str) -> Competitor:
        process = await asyncio.create_subprocess_exec(
            sys.executable, lease_process.__file__, str(self.kubeconfig), identity, stdout=asyncio.subprocess.PIPE
        )
        self._stack.push_async_callback(process.wait)
        self._stack.callback(_kill, process)
        return Competitor(identity, process)

    async def lease(self) -> Object:
        found: Object = (await self.client.get(LEASES, "default", "lead"))["spec"]
        return found

    async def follow(self) -> None:
        """Who wrote, change by change."""
        async for event in self.client.watch(CONFIGMAPS, "default", {}, idle=60):
            data = event["object"].get("data") or {}
            if "by" in data:
                self.writers.append(data["by"])


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with serving(tmp_path) as (kubeconfig, client), AsyncExitStack() as stack:
        await client.create(CONFIGMAPS, {"metadata": {"name": "count", "namespace": "default"}})
        found = Cluster(kubeconfig, client, stack)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(found.follow())
            try:
                yield found
            finally:
                following.cancel()
                await stack.aclose()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Path, Client]]:
    clock = SystemClock()
    with apifolder.opened(folder / "server") as home:
        async with Store.open(home.database, clock) as store:
            server = ApiServer(store, crds(), token=home.token, tls=home.tls("127.0.0.1", clock), clock=clock)
            async with server.listening("127.0.0.1", 0) as url:
                kubeconfig = home.write_kubeconfig(url)
                async with Client(auth.load(kubeconfig)) as client:
                    yield kubeconfig, client


def turns(writers: list[str]) -> list[str]:
    """Without repetitions."""
    return [each for number, each in enumerate(writers) if number == 0 or writers[number - 1] != each]


async def test_the_other_one_leads_after_a_kill_and_not_before_the_lease_has_ended(cluster: Cluster) -> None:
    first = await cluster.compete("first")
    await first.says("leads")
    second = await cluster.compete("second")
    killed = first.signal(signal.SIGKILL)
    led = await second.says("leads")
    assert 2.4 <= led - killed <= 6.0
    assert await cluster.lease() | {"renewTime": "", "acquireTime": ""} == {
        "holderIdentity": "second",
        "leaseDurationSeconds": 3,
        "leaseTransitions": 1,
        "renewTime": "",
        "acquireTime": "",
    }
    assert turns(cluster.writers) in (["first"], ["first", "second"])


async def test_one_that_was_stopped_beyond_its_lease_writes_nothing_when_it_wakes(cluster: Cluster) -> None:
    first = await cluster.compete("first")
    await first.says("leads")
    second = await cluster.compete("second")
    first.signal(signal.SIGSTOP)
    await second.says("leads")
    first.signal(signal.SIGCONT)
    await first.says("lost")
    assert "refused" in first.said
    assert await first.process.wait() == 1
    written = len(cluster.writers)
    async with asyncio.timeout(10):
        while len(cluster.writers) < written + 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert turns(cluster.writers) == ["first", "second"]


async def test_one_that_ends_in_order_hands_over_at_once(cluster: Cluster) -> None:
    first = await cluster.compete("first")
    await first.says("leads")
    second = await cluster.compete("second")
    await second.says("looks")
    ended = first.signal(signal.SIGTERM)
    led = await second.says("leads")
    assert led - ended < 2.0
    assert await first.process.wait() == 0
    assert (await cluster.lease())["holderIdentity"] == "second"


async def test_a_server_that_is_away_for_long_costs_the_lead(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        _, client = await stack.enter_async_context(serving(tmp_path))
        async with Client(client.config, attempts=1, timeout=0.5) as own:
            election = Election(own, namespace="default", name="lead", identity="me", timing=TIMING)
            running = asyncio.create_task(election.run())
            await election.leads.wait()
            assert election.holds()
            await stack.aclose()
            with pytest.raises(LeaseLostError, match="the Lease default/lead is lost: it could not be renewed for"):
                await running
    assert not election.holds()
    with pytest.raises(RetryLater, match="me does not hold the Lease default/lead"):
        election.guard()


@asynccontextmanager
async def electing(client: Client) -> AsyncIterator[Election]:
    async with Client(client.config, attempts=1, timeout=0.5) as own, asyncio.TaskGroup() as group:
        election = Election(own, namespace="default", name="lead", identity="me", timing=TIMING)
        running = group.create_task(election.run())
        try:
            yield election
        finally:
            running.cancel()


async def test_a_lease_that_somebody_broke_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        await client.create(LEASES, {"metadata": {"name": "lead", "namespace": "default"}})
        async with asyncio.timeout(10), electing(client) as election:
            await election.leads.wait()
            await election.release()
        assert (await client.get(LEASES, "default", "lead"))["spec"]["holderIdentity"] == ""
