"""`kill -9` at any moment loses no acknowledged write."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from kubectl_testing import Server
from modelyard.base.errors import ModelyardError
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import CONFIGMAPS

Object = dict[str, Any]
KILLS = 12
WRITERS = 4


class Ledger:
    """What was acknowledged, and every version that was ever told."""

    def __init__(self) -> None:
        self.created: dict[str, Object] = {}
        self.counters: dict[str, Object] = {}
        self.attempted: dict[str, int] = {}
        self.versions: list[int] = []
        self.removed: set[str] = set()
        self.awaited = 0
        self.reached = asyncio.Event()

    def note(self, body: Object) -> Object:
        self.versions.append(int(body["metadata"]["resourceVersion"]))
        if len(self.versions) >= self.awaited:
            self.reached.set()
        return body


def config(name: str, number: int, metadata: Object | None = None) -> Object:
    named = metadata or {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"number": str(number), "x": "y" * 999}}


async def write(client: Client, ledger: Ledger, writer: int, turn: int) -> None:
    """Create, count and remove until the server is gone."""
    counter = f"counter-{writer}"
    number = ledger.attempted.get(counter, 0)
    found = next(iter((await client.list(CONFIGMAPS, fieldSelector=f"metadata.name={counter}"))["items"]), None)
    for step in range(100_000):
        number += 1
        ledger.attempted[counter] = number
        if found is None:
            found = await client.create(CONFIGMAPS, config(counter, number))
        else:
            path = CONFIGMAPS.path("default", counter)
            found = await client.request("PUT", path, body=config(counter, number, found["metadata"]))
        ledger.counters[counter] = ledger.note(found)
        name = f"made-{turn}-{writer}-{step}"
        ledger.created[name] = ledger.note(await client.create(CONFIGMAPS, config(name, step)))
        if step % 3 == 2:
            victim = f"made-{turn}-{writer}-{step - 1}"
            del ledger.created[victim]  # from here on nobody knows, until it is acknowledged
            await client.delete(CONFIGMAPS, "default", victim)
            ledger.removed.add(victim)


async def write_until_killed(server: Server, ledger: Ledger, turn: int) -> None:
    before = max(ledger.versions, default=0)
    count = len(ledger.versions)
    ledger.awaited = count + WRITERS
    ledger.reached.clear()
    async with Client(auth.load(server.kubeconfig), attempts=1, timeout=20) as client:
        async with asyncio.TaskGroup() as tasks:
            for writer in range(WRITERS):
                tasks.create_task(ended(write(client, ledger, writer, turn)))
            # Wait for a first answer, so that every life of the server acknowledges something.
            await ledger.reached.wait()
            await asyncio.sleep(random.uniform(0, 0.4))
            server.kill()
    assert min(ledger.versions[count:]) > before


async def ended(writing: Any) -> None:
    with pytest.raises(ModelyardError):
        await writing


async def check(server: Server, ledger: Ledger) -> None:
    async with Client(auth.load(server.kubeconfig)) as client:
        stored: dict[str, Object] = {}
        token = ""
        while True:
            page = await client.list(CONFIGMAPS, "default", limit="500", **{"continue": token})
            stored |= {each["metadata"]["name"]: each for each in page["items"]}
            token = page["metadata"].get("continue", "")
            if not token:
                break
    for name, body in ledger.created.items():
        assert stored[name]["data"] == body["data"], name
        assert stored[name]["metadata"] == body["metadata"]
    for name, body in ledger.counters.items():
        number = int(stored[name]["data"]["number"])
        assert int(body["data"]["number"]) <= number <= ledger.attempted[name]
    assert not ledger.removed & set(stored)
    assert len(ledger.versions) == len(set(ledger.versions))


@pytest.mark.timeout(300)
async def test_a_killed_server_has_every_write_that_it_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger()
    for turn in range(KILLS):
        server = await asyncio.to_thread(Server, tmp_path)
        try:
            await check(server, ledger)
            await write_until_killed(server, ledger, turn)
        finally:
            server.kill()
    server = await asyncio.to_thread(Server, tmp_path)
    try:
        await check(server, ledger)
        assert len(ledger.created) > KILLS * WRITERS
    finally:
        server.kill()
